"""A folder of results with what people read: avaliacao.html, notas.svg, cartao.md."""

from __future__ import annotations

from pathlib import Path

from ptbr_slm.eval.report import plot
from ptbr_slm.eval.report.card import card
from ptbr_slm.eval.report.page import page
from ptbr_slm.eval.results import Results, save_results


def write_report(folder: Path, results: Results) -> None:
    """Write results, page, plot and model card, in place of older ones. Raises as `save_results`."""

    def more(new: Path) -> None:
        (new / "avaliacao.html").write_text(page(results), encoding="utf-8")
        (new / "notas.svg").write_text(plot.sheet(plot.panels(results)), encoding="utf-8")
        (new / "cartao.md").write_text(card(results), encoding="utf-8")

    save_results(folder, results, more)
