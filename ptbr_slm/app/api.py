"""`/generate`: the page's one endpoint for programs (gradio_client, curl), through Gradio's queue."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ptbr_slm.app.errors import shown_on_the_page
from ptbr_slm.app.writer import Writer
from ptbr_slm.runtime.sampling.params import SamplingParams

DESCRIPTION = (
    "Continua um texto. Devolve, à medida que cresce, o texto inteiro e uma linha com tokens, velocidade e "
    "semente."
)
_DEFAULTS = SamplingParams()


def add_generate(writer: Writer) -> None:
    """Add the endpoint to the `gr.Blocks` that is open."""
    import gradio as gr

    async def generate(
        prompt: Any,
        max_new_tokens: Any = _DEFAULTS.max_new_tokens,
        temperature: Any = _DEFAULTS.temperature,
        top_p: Any = _DEFAULTS.top_p,
        top_k: Any = _DEFAULTS.top_k,
        repetition_penalty: Any = _DEFAULTS.repetition_penalty,
        seed: Any = "",
    ) -> AsyncGenerator[tuple[str, str]]:
        values = (max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
        with shown_on_the_page():
            async with aclosing(writer.write(prompt, *values)) as texts:
                async for shown in texts:
                    yield shown

    gr.api(
        generate,
        api_name="generate",
        api_description=DESCRIPTION,
        concurrency_id="model",
        concurrency_limit=writer.slots,
    )
