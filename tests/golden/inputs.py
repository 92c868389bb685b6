"""Writes what the golden runs read: data/ (prepared text with its tokenizer) and model/ (small and trained).

    python tests/golden/inputs.py

Both are committed, so that a change of the tokenizer's training, of the data's preparation or of the training
moves no golden value but its own. They need to be written again only when their folder formats change; the
values are recorded again after that.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.run import train

HERE = Path(__file__).resolve().parent
DATA, MODEL = HERE / "data", HERE / "model"

SENTENCES = """
O barco saiu cedo do cais, antes que o sol aparecesse atrás do morro.
Na proa ia o velho Anselmo, que conhecia cada pedra daquela baía.
A neta dele, Luísa, segurava o balde e contava as gaivotas em voz alta.
Quando a maré virou, a rede já estava na água havia quase uma hora.
Não se pescava muito em agosto, mas o avô dizia que o mar nunca repete um dia.
Luísa perguntou por que a água mudava de cor perto da ilha.
É o fundo que muda, respondeu ele, porque ali a areia termina e começa o lodo.
Veio então um vento frio do sul, e as nuvens cobriram a serra inteira.
O motor tossiu duas vezes e parou; ficaram os dois ouvindo a chuva chegar.
Anselmo não se assustou: pegou os remos, mediu a corrente e começou a remar.
Remaram juntos até a praia, devagar, cantando para não pensar no frio.
Em casa, a avó esperava na varanda com um pano seco e café bem quente.
Trouxeram onze tainhas, três siris e uma história para contar no domingo.
A menina dormiu cedo, mas sonhou que o barco seguia sozinho para o norte.
No dia seguinte, o mecânico abriu o motor e achou um grão de areia na válvula.
Um grão de areia, disse o avô, às vezes pesa mais do que um barco.
Os vizinhos riram, e cada um lembrou a vez em que o mar quase o levou.
Dona Cida, a mais antiga da rua, falou do inverno de sessenta e dois.
Naquele ano a ponte caiu, e durante um mês ninguém chegou da cidade.
Comeram peixe, farinha e banana; as crianças aprenderam a ler na igreja.
Foi assim que a escola começou, explicou ela, com um livro só e muita paciência.
Luísa ouviu tudo e quis escrever aquilo num caderno, para não se perder.
Escreveu o nome do barco, a hora da chuva e o número de peixes.
Depois desenhou a ilha, com a areia de um lado e o lodo do outro.
O caderno ainda existe, guardado numa lata azul, em cima do armário.
""".strip().splitlines()
"""A story written for these tests."""


def write_data(scratch: Path) -> None:
    """25 documents, each the story from another sentence on, in 384 tokens."""
    tokenizer = Tokenizer.train(SENTENCES * 2, 384)
    tokenizer.save(scratch / "tokenizer.json")
    texts = scratch / "texts"
    texts.mkdir()
    for number in range(25):
        story = [SENTENCES[(7 * number + at) % len(SENTENCES)] for at in range(8 + number % 5)]
        (texts / f"{number:02d}.txt").write_text("\n".join(story) + "\n", encoding="utf-8")
    shutil.rmtree(DATA, ignore_errors=True)
    prepare([texts], DATA, tokenizer, valid_fraction=0.1)


def write_model(scratch: Path) -> None:
    """A model that has learnt some of the story, so that most of its next tokens are no close call."""
    values = {
        "data": DATA, "output": scratch / "run", "model_size": "nano", "seq_len": 64, "batch_size": 8,
        "max_steps": 400, "optimizer.learning_rate": 0.004, "evaluation.every": 0, "checkpoint.every": 0,
        "evaluation.sample_tokens": 0, "model.max_seq_len": 512, "model.hidden_size": 64,
        "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 32,
        "model.intermediate_size": 96,
    }  # fmt: skip
    result = train(from_values(values))
    shutil.rmtree(MODEL, ignore_errors=True)
    shutil.copytree(result.model, MODEL)
    manifest = json.loads((MODEL / "manifest.json").read_bytes())
    del manifest["source_run"]  # a folder that is gone
    (MODEL / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        write_model(Path(folder))
