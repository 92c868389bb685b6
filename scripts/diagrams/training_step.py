"""docs/img/passo-treino.svg: one optimizer step (ptbr_slm/train/step.py)."""

from __future__ import annotations

from canvas import WIDTH, Canvas

MIDDLE = WIDTH / 2


def draw() -> str:
    """The file's text."""
    canvas = Canvas(
        "Um passo do treino",
        "Cada GPU passa seus micro-lotes pelo modelo, um depois do outro, e soma os gradientes; as GPUs "
        "somam os seus entre si; se tudo é finito o otimizador muda os pesos uma vez, e o laço mede, "
        "salva ou para.",
    )
    y = canvas.box(
        110,
        24,
        500,
        "As janelas do passo",
        ("batch_size × grad_accum × GPUs janelas, a partir do cursor",),
        "file",
    )
    top = y + 30
    canvas.arrow((190, y), (190, top))
    canvas.arrow((530, y), (530, top))
    for x, name in ((24, "GPU 0"), (374, "GPU 1, se há duas")):
        canvas.frame(x, top, 322, 330, name)
        inside = top + 38
        for number, (title, what) in enumerate(
            (
                ("Micro-lote", "batch_size janelas"),
                ("Ida", "em fp16, bf16 ou fp32; pesos em fp32"),
                ("Perda", "em pedaços; dividida pelos alvos do passo"),
                ("Volta", "em fp16, multiplicada pela escala"),
            )
        ):
            if number:
                canvas.arrow((x + 161, inside - 14), (x + 161, inside))
            inside = canvas.box(x + 16, inside, 290, title, (what,)) + 14
        canvas.text(x + 161, inside + 8, "grad_accum vezes; os gradientes somam", "soft")
    y = top + 330
    canvas.arrow((185, y), (185, y + 30))
    canvas.arrow((535, y), (535, y + 30))
    y = canvas.box(
        60, y + 30, WIDTH - 120, "Somar os gradientes das GPUs", ("uma vez por passo, na última volta",)
    )
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 24))
    y = canvas.box(
        60,
        y + 24,
        WIDTH - 120,
        "Desfazer a escala, medir e cortar a norma",
        ("a norma é a do gradiente inteiro; --gradient-clip corta",),
    )
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 24))
    y = canvas.box(
        60,
        y + 24,
        WIDTH - 120,
        "Perda e gradiente são finitos?",
        ("a única espera pela GPU no passo",),
        "strong",
    )
    canvas.arrow((210, y), (210, y + 34))
    canvas.text(222, y + 22, "sim", "soft", "start")
    canvas.arrow((530, y), (530, y + 34))
    canvas.text(542, y + 22, "não", "soft", "start")
    canvas.box(60, y + 34, 300, "O otimizador", ("muda os pesos, uma vez",))
    y = canvas.box(380, y + 34, 280, "Nada muda", ("a escala de fp16 diminui",))
    canvas.arrow((210, y), (210, y + 24))
    canvas.arrow((520, y), (520, y + 24))
    canvas.box(
        60,
        y + 24,
        WIDTH - 120,
        "O laço",
        ("registra, avalia, salva um checkpoint, ou para na hora marcada",),
    )
    return canvas.render()
