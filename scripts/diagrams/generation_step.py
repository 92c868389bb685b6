"""docs/img/passo-geracao.svg: one step of the engine's thread (ptbr_slm/runtime/batch.py)."""

from __future__ import annotations

from canvas import WIDTH, Canvas

MIDDLE = WIDTH / 2
SLOTS = (
    ("vaga 0", "decodificando", 9, 0),
    ("vaga 1", "decodificando", 5, 0),
    ("vaga 2", "lendo o texto inicial", 4, 6),
    ("vaga 3", "livre", 0, 0),
)
"""Name, what it does, cells of its KV cache that are filled, cells of the prompt still to be read."""
CELLS, CELL = 14, 26


def draw() -> str:
    """The file's text."""
    canvas = Canvas(
        "Um passo da geração",
        "Pedidos da página, do servidor e do Python esperam numa fila e ganham vagas do lote. Em cada "
        "passo o modelo decodifica um token para cada texto e depois lê um pedaço de um texto inicial; "
        "as chaves e os valores de cada vaga ficam no cache KV.",
    )
    for x, name in ((24, "Python"), (256, "página"), (488, "servidor")):
        canvas.box(x, 24, 208, name, (), "file")
        canvas.arrow((x + 104, 57), (x + 104, 84))
    y = canvas.box(
        24,
        84,
        WIDTH - 48,
        "Fila",
        ("um texto entra quando há vaga e o seu comprimento inteiro cabe na memória",),
    )
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 30))
    top = y + 30
    y = _slots(canvas, top + 38)
    canvas.frame(24, top, WIDTH - 48, y - top, "O lote e o cache KV")
    canvas.arrow((190, y), (190, y + 30))
    canvas.arrow((530, y), (530, y + 30))
    y += 30
    canvas.box(
        24,
        y,
        328,
        "1. Decodificar",
        ("um token para cada texto,", "todos numa só passada do modelo"),
        "strong",
    )
    y = canvas.box(
        368,
        y,
        328,
        "2. Ler um pedaço",
        ("de 16 a 256 tokens de um texto inicial,", "e os outros textos não param"),
        "strong",
    )
    canvas.arrow((190, y), (190, y + 30))
    canvas.arrow((530, y), (530, y + 30))
    y = canvas.box(
        24,
        y + 30,
        WIDTH - 48,
        "Escolher o token",
        ("temperatura, top-p, formato pedido... cada texto com os seus ajustes e a sua semente",),
    )
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 24))
    y = canvas.box(
        24,
        y + 24,
        WIDTH - 48,
        "Virar texto",
        ("letras acentuadas só saem inteiras; quem pediu recebe o pedaço na hora",),
    )
    canvas.text(MIDDLE, y + 28, "e o passo recomeça, até o fim do último texto", "soft")
    return canvas.render()


def _slots(canvas: Canvas, y: float) -> float:
    """A row of cells for each slot; returns the y below them."""
    for name, state, filled, unread in SLOTS:
        canvas.text(40, y + 18, name, "name", "start")
        canvas.text(106, y + 18, state, "soft", "start")
        for cell in range(CELLS):
            kind = "strong" if cell < filled else "file" if cell < filled + unread else "part"
            canvas.cell(268 + cell * (CELL + 3), y, CELL, kind)
        y += CELL + 8
    canvas.text(
        40,
        y + 16,
        "cheio: chaves e valores de um token já lido; amarelo: texto inicial por ler; o resto, lugar livre",
        "soft",
        "start",
    )
    return y + 34
