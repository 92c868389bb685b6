"""docs/img/caminho-dados.svg: from texts to the windows that a training reads."""

from __future__ import annotations

from canvas import WIDTH, Canvas

STEPS = (
    ("Ler", "um documento por vez; a linha estragada é contada, com a razão, e pulada"),
    ("Limpar", "acentos quebrados, palavras partidas, menus de páginas: --preset none, curated ou web"),
    ("Mascarar dados pessoais", "com --mask-personal-data: CPF, telefone e e-mail viram [CPF], [EMAIL]..."),
    ("Marcar e filtrar", "língua, variedade (br ou pt) e as regras da mistura; cada descarte é contado"),
    ("Virar tokens", "com o tokenizer.json, em lotes; tudo até aqui, em vários processos"),
    ("Tirar cópias", "as exatas sempre; as quase iguais com --drop-near-duplicates"),
    ("Separar a validação", "1 % do texto, nunca treinado; quase cópias ficam do mesmo lado"),
)
"""What `data prepare` does, in its order: `data.process`, `data.ingest`, `data.select`."""
MIDDLE = WIDTH / 2


def draw() -> str:
    """The file's text."""
    canvas = Canvas(
        "O caminho dos dados",
        "Textos seus e textos baixados por data fetch são lidos, limpos, filtrados, mascarados, "
        "livrados de cópias, separados em treino e validação e transformados em tokens por data "
        "prepare; o treino lê os arquivos resultantes em janelas.",
    )
    canvas.box(
        40,
        24,
        300,
        "Os seus textos",
        ("txt, JSONL, CSV, Parquet, HTML,", "Wikipédia (XML), zip, tar"),
        "file",
    )
    bottom = canvas.box(
        380, 24, 300, "Textos baixados", ("ptbr-slm data fetch", "com origem e licença"), "file"
    )
    top = bottom + 34
    canvas.arrow((190, bottom), (190, top))
    canvas.arrow((530, bottom), (530, top))
    y = top + 34
    for number, (name, what) in enumerate(STEPS):
        if number:
            canvas.arrow((MIDDLE, y - 14), (MIDDLE, y))
        y = canvas.box(60, y, WIDTH - 120, name, (what,)) + 14
    canvas.frame(24, top, WIDTH - 48, y - top, "ptbr-slm data prepare")
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 30))
    y = canvas.box(
        60,
        y + 30,
        WIDTH - 120,
        "Dados preparados",
        (
            "train-00000.bin, valid-00000.bin: os tokens, de 2 bytes cada um",
            "index.json: contagens, o tokenizador e o sha256 de cada arquivo",
        ),
        "file",
    )
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 30))
    y = canvas.box(
        60,
        y + 30,
        WIDTH - 120,
        "Janelas de seq_len + 1 tokens",
        ("a ordem vem só da semente e da época; um número, o cursor, diz onde o treino está",),
    )
    canvas.arrow((MIDDLE, y), (MIDDLE, y + 30))
    canvas.box(MIDDLE - 130, y + 30, 260, "ptbr-slm train", (), "strong")
    return canvas.render()
