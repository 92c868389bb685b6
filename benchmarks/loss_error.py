"""Error and memory of the loss's variants under fp16's loss scale, against fp64.

    python benchmarks/loss_error.py            # the tables on the terminal
    python benchmarks/loss_error.py --write    # and into docs/benchmarks.md

On the CPU; inputs of products and their results are rounded to fp16 as on a card, sums inside are in fp32. A
micro-batch of rows is taken as part of an optimizer step of so many target tokens, at a loss scale of 65,536.
"""

from __future__ import annotations

import argparse
import sys

import torch
import torch.nn.functional as F
from machine import facts
from results import table, write_section
from torch import Tensor

from ptbr_slm.loss import linear_cross_entropy, plain_cross_entropy
from ptbr_slm.loss_chunks import chunk_rows

ROWS, WIDTH, VOCABULARY, CHUNK = 128, 256, 32_000, 64
SCALE = 65_536.0
TOKENS = (1_024, 8_192, 65_536, 524_288)
VARIANTS = ("plain", "chunked, formed in forward", "chunked, recomputed", "rounded before the scale")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=draw)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw) * 0.05
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=draw)
    rows = []
    exact = gradients("exact", hidden.double(), weight.double(), targets, 1.0)
    for tokens in TOKENS:
        factor = SCALE / tokens
        cells = []
        for variant in VARIANTS:
            found = gradients(variant, hidden, weight, targets, factor)
            errors = [relative(a, b * factor) for a, b in zip(found, exact, strict=True)]
            cells.append(" / ".join(f"{error:.1e}" for error in errors))
        rows.append([f"{tokens:,}", *cells])
        sys.stderr.write(" ".join(rows[-1]) + "\n")
    text = "\n\n".join(
        [
            "`python benchmarks/loss_error.py" + (" --write" if write else "") + "`",
            facts(("torch",), 1),
            f"Relative error of the gradient (of hidden states / of the head), {ROWS} rows of {WIDTH}, V = "
            f"{VOCABULARY:,}, chunks of {CHUNK} rows, against fp64. Measured.",
            table(["mean over, tokens", *VARIANTS], rows),
            "Logits and their gradients at V = 32,000, by the sizes of what exists at once. Computed.",
            table(["tokens", "plain", "chunked fp32 (CPU)", "chunked fp16 (GPU)"], sizes()),
        ]
    )
    sys.stdout.write(text + "\n")
    if write:
        write_section("loss", text)


def gradients(variant: str, hidden: Tensor, weight: Tensor, targets: Tensor, factor: float) -> list[Tensor]:
    """Those of factor * the summed loss, by hidden and weight."""
    if variant == "rounded before the scale":
        return early(hidden, weight, targets, factor / SCALE, SCALE)
    leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    if variant == "exact":
        loss = F.cross_entropy(leaves[0] @ leaves[1].t(), targets, reduction="sum")
        return list(torch.autograd.grad(loss * factor, leaves))
    with torch.autocast("cpu", torch.float16):
        if variant == "plain":
            loss = plain_cross_entropy(F.linear(*leaves), targets)
        else:
            scale = torch.tensor(factor) if "forward" in variant else None
            loss = linear_cross_entropy(*leaves, targets, scale=scale, rows=CHUNK)
    return list(torch.autograd.grad(loss * factor, leaves))


def early(hidden: Tensor, weight: Tensor, targets: Tensor, mean: float, scale: float) -> list[Tensor]:
    """What is shipped elsewhere: dlogits / N rounded to fp16 in the forward pass, the scale afterwards."""
    small, head = hidden.half(), weight.half()
    slopes = (small @ head.t()).float().softmax(-1)
    slopes[torch.arange(len(targets)), targets] -= 1
    rounded = (slopes * mean).half()
    return [(rounded @ head).float() * scale, (rounded.t() @ small).float() * scale]


def relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference / norm of what was wanted."""
    return float((found.double() - wanted).norm() / wanted.norm())


def sizes() -> list[list[str]]:
    """Rows of the table of bytes."""
    rows = []
    for tokens in (2_048, 8_192, 16_384):
        logits = tokens * VOCABULARY
        cpu, gpu = (chunk_rows(tokens, VOCABULARY, device) * VOCABULARY for device in ("cpu", "cuda"))
        # plain, in either precision: log-probabilities, their gradient and that of the logits, in fp32
        counted = (12 * logits, 4 * cpu, (4 + 2) * gpu)
        rows.append([f"{tokens:,}", *(f"{size / 2**30:.2f} GiB" for size in counted)])
    return rows


if __name__ == "__main__":
    main()
