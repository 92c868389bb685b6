"""Treina o modelo de demonstração `machado`, que vem dentro do pacote, do texto até a ficha.

    python examples/modelo_de_demonstracao.py -o runs/machado            # o modelo do pacote: horas
    python examples/modelo_de_demonstracao.py -o /tmp/prova --passos 20  # o mesmo caminho, em minutos

Precisa de `pip install -e '.[train,export,cpu,eval]'` e das obras de Machado de Assis que vêm com os dados
do NLTK (`pip install nltk && python -m nltk.downloader machado`; o Kaggle já as tem). Cada etapa é um comando
ptbr-slm, mostrado antes de rodar. Interrompido, continua de onde parou quando o comando é repetido.

No fim, PASTA/export tem o modelo e a ficha (README.md), e PASTA/amostras.txt os textos que alguém deve
ler. Depois de contar as frases gramaticais: --julgadas "CERTAS de TODAS" só escreve a ficha de novo.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ptbr_slm
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.stages.clean import clean
from ptbr_slm.eval.results import read_results
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import number

GENEROS = ("romance", "conto", "crônica", "crítica", "tradução", "miscelânea")
"""O que é prosa: verso e teatro ensinariam linhas curtas e nomes de personagens."""
OBRAS_DE_FORA = ("domCasmurro", "historiasMeiaNoite")
"""Um romance e um livro de contos que o modelo nunca vê, para medir (os mesmos de benchmarks/learning.py)."""
VOCABULARIO = 4096
TRECHO = 2000
"""Caracteres a partir dos quais um trecho acaba, no fim de um parágrafo: assim o modelo vê muitos começos."""
SEMENTE = 1
PASSOS = 1600
TREINO = {
    "seed": SEMENTE,
    "model.hidden_size": 256,
    "model.num_layers": 5,
    "model.num_heads": 4,
    "model.num_kv_heads": 2,
    "model.intermediate_size": 768,
    "seq_len": 512,
    "batch_size": 4,
    "tokens_per_step": 4096,
    "ranks": 2,
    "optimizer.name": "muon",
    "optimizer.learning_rate": 3e-3,
    "schedule.kind": "wsd",
    "schedule.warmup_steps": 30,
    "schedule.cooldown_fraction": 0.5,
    "checkpoint.every": 100,
    "checkpoint.keep": 2,
    "evaluation.every": 200,
    "evaluation.sample_tokens": 48,
}
"""4.980.992 parâmetros. Dois processos de um núcleo cada aprendem 1,3 vez mais rápido que um de dois."""

INICIOS = ("Naquela noite,", "Meu caro leitor,", "A viúva", "— Não me diga que", "O Rio de Janeiro")
AMOSTRAGEM: Any = {"max_new_tokens": 80, "temperature": 0.8, "top_p": 0.95}

_FIM_DE_FRASE = re.compile(r"[.!?…:][\"'”’»)]*$")
_ATE_O_FIM = re.compile(r"^.*[.!?…][\"'”’»)]*(?=\s)", re.DOTALL)


def paragrafos(texto: str) -> Iterator[str]:
    """Os parágrafos de uma obra; uma linha vazia onde um título, uma data ou um índice separa trechos.

    `clean` (o que `data prepare` faz) já juntou as linhas quebradas. Aqui se juntam as que ele, cauteloso,
    deixou: a que não termina frase, seguida de uma que começa em minúscula ou travessão.
    """
    juntas: list[str] = []
    for linha in clean(texto).text.split("\n"):
        linha = linha.strip()
        aberta = juntas and len(juntas[-1]) > 50 and not _FIM_DE_FRASE.search(juntas[-1])
        if aberta and (linha[:1].islower() or linha.startswith("—")):
            juntas[-1] += " " + linha
        else:
            juntas.append(linha)
    for linha in juntas:
        if not _FIM_DE_FRASE.search(linha) and len(linha) > 200:  # um parágrafo que a página cortou
            inteiro = _ATE_O_FIM.search(linha)
            linha = inteiro.group() if inteiro else ""
        tem_frase = _FIM_DE_FRASE.search(linha) and any(letra.islower() for letra in linha)
        yield linha if tem_frase and not linha[0].islower() else ""


def trechos(texto: str) -> Iterator[str]:
    """Pedaços de uma obra com alguns parágrafos cada; os curtos, entre dois títulos, ficam de fora."""
    pedaco: list[str] = []
    tamanho = 0
    for paragrafo in (*paragrafos(texto), ""):
        if paragrafo:
            pedaco.append(paragrafo)
            tamanho += len(paragrafo)
        if tamanho >= TRECHO or not paragrafo:
            if tamanho >= 200:
                yield "\n".join(pedaco)
            pedaco, tamanho = [], 0


def separar(obras: Path, pasta: Path) -> tuple[Path, Path]:
    """Os trechos para treinar, e as obras que ficam de fora, como JSONL.

    Estas vão inteiras, com os títulos, só com as linhas juntas: é o que `data prepare` faria delas.
    """
    treino, fora = pasta / "trechos.jsonl", pasta / "de-fora.jsonl"
    with (
        obras.open(encoding="utf-8") as linhas,
        treino.open("w", encoding="utf-8") as de_treino,
        fora.open("w", encoding="utf-8") as de_fora,
    ):
        for linha in linhas:
            obra = json.loads(linha)
            genero, nome = obra["source"].removeprefix("machado:").removesuffix(".txt").split("/")
            if nome in OBRAS_DE_FORA:
                inteira = {**obra, "text": clean(obra["text"]).text}
                de_fora.write(json.dumps(inteira, ensure_ascii=False) + "\n")
            elif genero in GENEROS:
                for trecho in trechos(obra["text"]):
                    de_treino.write(json.dumps({**obra, "text": trecho}, ensure_ascii=False) + "\n")
    return treino, fora


def comando(*partes: str | Path) -> None:
    """Mostra um comando ptbr-slm e o executa; para com o código dele se falhar."""
    palavras = [str(parte) for parte in partes]
    print(f"\n$ ptbr-slm {shlex.join(palavras)}", flush=True)
    feito = subprocess.run([sys.executable, "-m", "ptbr_slm", *palavras], check=False)
    if feito.returncode:
        sys.exit(feito.returncode)


def preparar(pasta: Path) -> None:
    """Baixa, separa, treina o tokenizador e grava os tokens em PASTA/dados."""
    dados = pasta / "dados"
    if dados.exists():
        return
    comando("data", "fetch", "machado", "-o", pasta / "textos")
    treino, _ = separar(pasta / "textos" / "machado.jsonl", pasta)
    comando("tokenizer", "train", treino, "-o", pasta / "tokenizer.json", "--vocab-size", str(VOCABULARIO))
    comando("data", "prepare", treino, "-o", dados, "--tokenizer", pasta / "tokenizer.json")


def treinar(dados: Path, pasta: Path, passos: int) -> Path:
    """Treina e devolve a pasta do modelo."""
    opcoes = [parte for nome, valor in TREINO.items() for parte in ("--set", f"{nome}={valor}")]
    comando("train", "--data", dados, "--output", pasta / "treino", "--max-steps", str(passos), *opcoes)
    return pasta / "treino" / "final"


def exportar(modelo: Path, dados: Path, export: Path) -> None:
    """Grava o export em int4, que só existe se responde como o modelo, e o confere de novo."""
    comando("export", modelo, "-o", export, "--precision", "int4", "--calibration", dados)
    comando("verify", export, "--against", modelo)


def avaliar(export: Path, pasta: Path) -> None:
    """Mede bits por byte nas obras que ficaram de fora, e a suíte de gramática do projeto."""
    texto = f"obras de fora={pasta / 'de-fora.jsonl'}"
    comando("eval", export, "--text", texto, "--tasks", "gramatica", "-o", pasta / "avaliacao")


def escrever_amostras(export: Path, arquivo: Path) -> None:
    """Vinte textos, um por semente de 0 a 19, sem escolher nenhum."""
    with ptbr_slm.load(export) as modelo:
        textos = []
        for semente in range(20):
            inicio = INICIOS[semente % len(INICIOS)]
            texto = modelo.generate(inicio, seed=semente, **AMOSTRAGEM)
            textos.append(f"[{semente}] {inicio}{texto}\n")
    write_text(arquivo, "\n".join(textos))


FICHA = """\
---
language: pt
license: apache-2.0
pipeline_tag: text-generation
---

# machado: o modelo de demonstração do ptbr-slm

Um Llama de {parametros} parâmetros, em ONNX int4, que continua um texto no jeito de um narrador brasileiro do
século XIX. Vem dentro do pacote para que se veja, um minuto depois de instalar, o que um modelo pequeno
treinado aqui faz: `ptbr-slm generate -m machado "Naquela noite,"` e `ptbr-slm app`.

## O que ele não é

- Não escreve sempre certo: erra a gramática com frequência, sobretudo longe da palavra com que se concorda
  (abaixo, quanto).
- Não sabe nada: os fatos, nomes e datas que escreve são inventados.
- Não conversa nem obedece: só continua. O sentido de um parágrafo se perde depois de uma ou duas frases.
- Escreve na ortografia de antes de 2009 (*idéia*, *tranqüilo*), a das edições que leu, e com as ideias da
  época dos textos, inclusive sobre mulheres e pessoas escravizadas.
- Trechos curtos podem repetir Machado de Assis palavra por palavra.
- Serve para experimentar o programa. Para um uso de verdade, treine o seu.

## De que é feito

| | |
|---|---|
| textos | prosa de Machado de Assis (1839-1908), do corpus `machado` do NLTK |
| quanto texto | {tokens} tokens em {trechos} trechos |
| licença dos textos | domínio público |
| licença do modelo | Apache-2.0, como o pacote |
| ficam de fora | *Dom Casmurro* e *Histórias da Meia-Noite*, inteiras; versos, teatro, títulos e índices |
| formato | {camadas} camadas, largura {largura}, vocabulário {vocabulario}, contexto de {contexto} tokens |
| treino | {passos} passos de 4.096 tokens ({epocas} vezes o texto), Muon a 3e-3, WSD, semente {semente} |
| tempo | {minutos} minutos de relógio em 2 núcleos, com o que mais a máquina fazia ({velocidade} tokens/s) |
| exportação | int4 (gptq), embedding e saída em int8, conferida com o PyTorch |
| tamanho da pasta | {megabytes} MB |
| script | `examples/modelo_de_demonstracao.py`, que fez este modelo e esta ficha |

## O que se mediu

Tudo no modelo em int4, como ele está aqui.

| | |
|---|---|
| bits por byte nas obras de fora | {bits} ({alvos} tokens previstos, {bytes} bytes) |
| suíte de gramática do projeto | {gramatica} dos {pares} pares mínimos (acaso: 50 %) |
| frases gramaticais em vinte textos, lidas uma a uma | {julgadas} |

Os vinte textos: até {por_texto} tokens, um por semente de 0 a 19, temperatura {temperatura}, `top_p` {top_p},
com estes inícios em rodízio, nenhum descartado: {inicios}.
Conta-se cada frase que termina. É gramatical a que um leitor de prosa do século XIX aceitaria quanto a
palavras que existem, concordância, regência e estrutura, mesmo que não faça sentido.

## sha256

```text
{sha256}
```
"""


def escrever_ficha(export: Path, dados: Path, pasta: Path, julgadas: str) -> None:
    """A ficha do modelo, com o que as etapas mediram."""
    modelo = ModelFolder.open(export)
    treino = PreparedData.open(dados).split("train")
    passos = [linha for linha in linhas(pasta / "treino" / "metrics.jsonl") if linha["event"] == "step"]
    aprendidos, segundos = passos[-1]["tokens"], passos[-1]["elapsed_s"]
    resultados = read_results(pasta / "avaliacao")
    bits, gramatica = resultados.bits[0], resultados.tasks[0]
    acertos = next(nota.value for nota in gramatica.scores if nota.metric == "acc")
    arquivos = sorted(
        arquivo for arquivo in export.iterdir() if arquivo.name not in ("README.md", "manifest.json")
    )
    forma = modelo.config
    ficha = FICHA.format(
        parametros=number(forma.num_parameters),
        tokens=number(treino.tokens),
        trechos=number(treino.documents),
        camadas=forma.num_layers,
        largura=forma.hidden_size,
        vocabulario=number(forma.vocab_size),
        contexto=forma.max_seq_len,
        passos=number(passos[-1]["step"]),
        epocas=number(aprendidos / treino.tokens, 1),
        semente=SEMENTE,
        minutos=number(segundos / 60),
        velocidade=number(aprendidos / segundos),
        megabytes=number(sum(arquivo.stat().st_size for arquivo in export.iterdir()) / 1e6, 1),
        bits=number(bits.value, 3),
        alvos=number(bits.targets),
        bytes=number(bits.bytes),
        gramatica=f"{number(100 * acertos, 1)} %",
        pares=number(len(gramatica.items)),
        julgadas=julgadas,
        por_texto=AMOSTRAGEM["max_new_tokens"],
        inicios=", ".join(f"«{inicio}»" for inicio in INICIOS),
        temperatura=number(AMOSTRAGEM["temperature"], 1),
        top_p=number(AMOSTRAGEM["top_p"], 2),
        sha256="\n".join(f"{sha256_file(arquivo)}  {arquivo.name}" for arquivo in arquivos),
    )
    write_text(export / "README.md", ficha)


def linhas(arquivo: Path) -> list[dict[str, Any]]:
    """Os objetos de um arquivo JSONL."""
    return [json.loads(linha) for linha in arquivo.read_text(encoding="utf-8").splitlines()]


def ler_opcoes() -> argparse.Namespace:
    """O que foi escrito na linha de comando."""
    leitor = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    leitor.add_argument("-o", "--pasta", type=Path, default=Path("runs/machado"), metavar="PASTA")
    leitor.add_argument("--passos", type=int, default=PASSOS, help=f"de treino (padrão: {PASSOS})")
    leitor.add_argument("--julgadas", default="", metavar="TEXTO")
    return leitor.parse_args()


def main() -> None:
    """As etapas, em ordem."""
    opcoes = ler_opcoes()
    pasta: Path = opcoes.pasta
    pasta.mkdir(parents=True, exist_ok=True)
    dados, export = pasta / "dados", pasta / "export"
    if not opcoes.julgadas:
        preparar(pasta)
        exportar(treinar(dados, pasta, opcoes.passos), dados, export)
        avaliar(export, pasta)
        escrever_amostras(export, pasta / "amostras.txt")
    escrever_ficha(export, dados, pasta, opcoes.julgadas or "ainda não lidas")
    print(f"\nPronto: {export}, com a ficha em README.md. Leia {pasta / 'amostras.txt'}.")


if __name__ == "__main__":
    main()
