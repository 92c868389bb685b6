"""How the page looks: a font that Gradio ships (nothing is fetched), a serif for the text."""

from __future__ import annotations

from typing import Any

FONT = "IBM Plex Sans"
"""One of the few fonts in Gradio 6.31 with Latin letters in its file: Source Sans 3, Lora, Lexend and others
hold only a Vietnamese or Cyrillic subset, and a page set in them mixes two fonts in a word (a test looks)."""

CSS = """
.gradio-container {width: 100%; max-width: 1160px !important; margin: 0 auto !important}
#topo h1 {font-size: 1.7rem; font-weight: 700; letter-spacing: -0.015em; margin: 0 0 .3rem}
#topo p {font-size: 1.05rem; line-height: 1.5; max-width: 46rem; margin: 0}
#texto textarea {
  font-family: Charter, 'Bitstream Charter', 'Sitka Text', Georgia, 'Noto Serif', serif;
  font-size: 17px; line-height: 1.65; padding: .35rem 0 .5rem;
}
#acoes, #acoes-conversa {gap: .6rem}
#acoes button, #acoes-conversa button {
  min-height: 44px; font-size: 1rem; font-weight: 600; padding: .4rem .5rem; white-space: nowrap;
}
#estado, #estado-conversa {min-height: 1.6rem}
#estado p, #estado-conversa p {
  font-size: .92rem; font-variant-numeric: tabular-nums; margin: 0; color: var(--body-text-color-subdued);
}
#ficha h2 {font-size: 1rem; font-weight: 600; margin: 0 0 .6rem}
#ficha dl {display: grid; grid-template-columns: auto 1fr; gap: .35rem 1rem; margin: 0; font-size: .92rem}
#ficha dt {color: var(--body-text-color-subdued)}
#ficha dd {margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere}
#amostragem .form, #amostragem-conversa .form {border: none; background: none}
#amostragem input:not([type=range]), #amostragem-conversa input:not([type=range]) {
  border: 1px solid var(--border-color-primary); border-radius: var(--radius-sm);
}
footer .divider {display: none !important}
@media (max-width: 640px) {
  .gradio-container {padding: .75rem !important}
  #topo h1 {font-size: 1.45rem}
  #topo p {font-size: 1rem}
}
"""

HEAD = """
<script>
document.documentElement.lang = "pt-BR";
document.addEventListener("keydown", (event) => {
  const inside = event.target.closest && event.target.closest("#texto");
  if (inside && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.querySelector("#continuar").click();
  }
  if (event.key === "Escape") {
    document.querySelectorAll("#parar, #parar-resposta").forEach((stop) => stop.disabled || stop.click());
  }
}, true);
// While the model writes (Continuar is off), what one types would be lost: the box is read-only.
new MutationObserver(() => {
  document.querySelectorAll(".toast-title.error").forEach((title) => {  // Gradio 6.31 drops gr.Error's title
    if (title.firstChild?.data?.trim() === "Error") title.firstChild.data = "Não deu para continuar";
  });
  const button = document.querySelector("#continuar");
  const box = document.querySelector("#texto textarea");
  const status = document.querySelector("#estado");
  if (!button || !box || !status) return;
  if (box.readOnly !== button.disabled) box.readOnly = button.disabled;
  const busy = String(button.disabled);  // a screen reader hears the finished line, not twenty a second
  if (status.getAttribute("aria-busy") === busy) return;
  box.setAttribute("aria-label", "Texto");
  status.setAttribute("role", "status");
  status.setAttribute("aria-live", "polite");
  status.setAttribute("aria-busy", busy);
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["disabled"]});
</script>
"""


def theme() -> Any:
    """A `gradio.themes.Base` in stone and emerald."""
    import gradio as gr
    from gradio.themes.utils.fonts import LocalFont

    return gr.themes.Base(
        primary_hue=gr.themes.colors.emerald,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=(LocalFont(FONT, weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",  # 7.2:1 on the background
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_color="transparent",
        input_border_color_dark="transparent",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        slider_color="*primary_600",
    )
