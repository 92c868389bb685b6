"""Prepara dados em várias máquinas, com Ray ou Slurm: o mesmo resultado de `ptbr-slm data prepare`.

    pip install "ptbr-slm[train,scale]"
    python examples/scale/datatrove_ray.py textos -o dados --tokenizer tokenizer.json --preset web --tasks 64
    ptbr-slm train --data dados --output runs/meu --model-size 85m

Sem cluster, usa os núcleos desta máquina. Num cluster Ray, rode-o nele (`ray job submit`, ou com RAY_ADDRESS
no ambiente). Com `--slurm PARTIÇÃO`, cada passo é um trabalho do Slurm: isso não foi experimentado. Entradas,
saída e pasta de trabalho ficam num disco que todas as máquinas veem; o ptbr-slm está instalado em todas.

São quatro passos; no primeiro, cada etapa do ptbr-slm é um bloco do datatrove:

1. textos (--tasks tarefas): lê uma fatia dos arquivos, limpa e filtra; grava textos, impressões e MinHash.
2. escolha (1 tarefa): cópias exatas, quase cópias e a parte de validação, com todos os documentos à vista.
3. tokens (--tasks tarefas): cada tarefa tokeniza o que ficou dos seus documentos em arquivos seus.
4. junção (1 tarefa): um índice só. Os arquivos de tokens são conferidos, e não reescritos.

Os documentos, a ordem deles, os tokens, a validação e os motivos dos descartes são os de `data prepare` com
as mesmas opções; só os cortes entre arquivos de tokens são outros, e com `--preset web` ficam os parágrafos
que se repetem entre documentos (tirá-los pede que se leia em ordem). Se algo morrer, repita o comando:
o que já foi feito não se repete.

O que este exemplo não faz: `--mix` com pesos, `--repeat-copies`, `--paragraph-documents`; entradas fora de um
disco comum (S3); dividir um arquivo entre tarefas; repartir o passo 2, que roda num processo só. Para mais de
uns 100 milhões de documentos, tire antes as quase cópias com os blocos Minhash do datatrove.
"""

import argparse
import hashlib
import json
import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import ray
from datatrove.data import Document as Text
from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from ptbr_slm.data.document import Document, Skipped
from ptbr_slm.data.join import join
from ptbr_slm.data.mixture import plan
from ptbr_slm.data.parts import choose_parts, files_of_part, part_writer, tokenize_part
from ptbr_slm.data.read.files import STDIN, InputFile, list_files
from ptbr_slm.data.read.reader import read_file
from ptbr_slm.data.recipe import Recipe, SourceOptions
from ptbr_slm.data.stages.markup import Markup
from ptbr_slm.data.stages.stage import Dropped, Stage
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.version import __version__


@dataclass(frozen=True)
class Job:
    """O que todas as tarefas sabem. A lista dos arquivos fica na pasta de trabalho."""

    recipe: Recipe
    tokenizer: Path
    out: Path
    work: Path
    tasks: int
    valid_fraction: float
    seed: int

    def folders(self, step: str) -> list[Path]:
        return [self.work / step / f"{rank:05d}" for rank in range(self.tasks)]

    def files_of(self, rank: int) -> list[InputFile | Skipped]:
        files = pickle.loads((self.work / "arquivos.pickle").read_bytes())
        return list(files_of_part(files, rank, self.tasks))

    # Para o datatrove, uma função (dados, tarefa, tarefas) também é um bloco.

    def choose(self, data, rank, tasks) -> None:
        choose_parts(self.folders("textos"), self.work / "escolha", self.recipe, self.valid_fraction)

    def tokenize(self, data, rank, tasks) -> None:
        os.environ["RAYON_NUM_THREADS"] = "1"  # um núcleo por tarefa
        part, out = self.folders("textos")[rank], self.folders("tokens")[rank]
        choice, tokenizer = self.work / "escolha", Tokenizer.load(self.tokenizer)
        tokenize_part(part, rank, choice, out, tokenizer, self.recipe, seed=self.seed)

    def join(self, data, rank, tasks) -> None:
        join(self.folders("tokens"), self.out)


class Read(PipelineStep):
    """Passo 1: os arquivos da tarefa, nos formatos que o ptbr-slm lê."""

    name, type = "ptbr-slm: leitura", "📖 - READER"

    def __init__(self, job: Job, part: "Part"):
        super().__init__()
        self.job, self.part = job, part

    def run(self, data=None, rank=0, world_size=1):
        for file in self.job.files_of(rank):
            for found in [file] if isinstance(file, Skipped) else read_file(file):
                if isinstance(found, Skipped):
                    self.part.writer.skip(found)
                else:
                    yield to_datatrove(found)


def to_datatrove(document: Document) -> Text:
    metadata = {"source": document.source, "licence": document.licence, **document.attributes}
    return Text(document.text, document.id, metadata=metadata)


def from_datatrove(doc: Text) -> Document:
    attributes = dict(doc.metadata)
    return Document(doc.text, attributes.pop("source"), doc.id, attributes.pop("licence"), attributes)


class Apply(BaseFilter):
    """Qualquer etapa do ptbr-slm (Document -> Document | Dropped) como bloco do datatrove."""

    def __init__(self, stage: Stage, part: "Part"):
        self.name = f"ptbr-slm: {stage.name}"
        super().__init__()
        self.stage, self.part = stage, part

    def filter(self, doc: Text):
        document = from_datatrove(doc)
        answer = self.stage(document)
        if isinstance(answer, Dropped):
            self.part.writer.drop(document, answer, self.stage.name)
            return False, answer.reason
        after = to_datatrove(answer)
        doc.text, doc.metadata = after.text, after.metadata
        return True


class Part(PipelineStep):
    """Fim do passo 1: o que ficou e o que saiu, na ordem da entrada, numa pasta que só aparece inteira."""

    name, type = "ptbr-slm: textos", "💽 - WRITER"

    def __init__(self, job: Job):
        super().__init__()
        self.job = job

    def run(self, data, rank=0, world_size=1):
        with part_writer(self.job.folders("textos")[rank], self.job.recipe, self.job.seed) as self.writer:
            for doc in data:
                self.writer.keep(from_datatrove(doc))


def steps(job: Job) -> list[tuple[str, int, list]]:
    """(nome, tarefas, blocos). No primeiro cabem também blocos do datatrove, entre os nossos."""
    part = Part(job)
    stages = [Apply(stage, part) for stage in (Markup(), *job.recipe.sources[0].stages.all)]
    return [
        ("textos", job.tasks, [Read(job, part), *stages, part]),
        ("escolha", 1, [job.choose]),
        ("tokens", job.tasks, [job.tokenize]),
        ("junção", 1, [job.join]),
    ]


class RayExecutor(RayPipelineExecutor):
    """O do datatrove, com um processo do Ray por tarefa: se morre, o Ray repete a tarefa.

    O `run` original abre outro processo dentro de um ator e, se é esse que morre, espera para sempre.
    """

    def run(self) -> None:
        options = {
            "num_cpus": self.cpus_per_task,
            "memory": int(self.mem_per_cpu_gb * 2**30),
            "max_retries": 3,
        }
        run_rank = ray.remote(**options)(lambda rank: self._run_for_rank(rank) and None)
        started = [run_rank.remote(rank) for rank in self.get_incomplete_ranks()]
        if started:
            ray.wait(started, num_returns=len(started))  # um erro não interrompe as outras tarefas
        ray.get(started)


def run_on_ray(job: Job, memory_gb: float) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # o Ray não conta nada a ninguém
    ray.init(include_dashboard=False, log_to_driver=False)
    for name, tasks, pipeline in steps(job):
        logs, again = str(job.work / "logs" / name), name == "junção"
        RayExecutor(
            pipeline, tasks, logging_dir=logs, skip_completed=not again, mem_per_cpu_gb=memory_gb
        ).run()


def run_on_slurm(job: Job, memory_gb: float, partition: str) -> None:
    previous = None
    for name, tasks, pipeline in steps(job):
        logs, again = str(job.work / "logs" / name), name == "junção"
        previous = SlurmPipelineExecutor(
            pipeline, tasks, time="24:00:00", partition=partition, mem_per_cpu_gb=memory_gb, depends=previous,
            job_name=f"ptbr-slm-{name}", logging_dir=logs, skip_completed=not again,
        )  # fmt: skip
    previous.run()  # lança antes os passos de que depende


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepara dados em várias máquinas.")
    parser.add_argument("entradas", nargs="+", type=Path, help="Arquivos ou pastas de texto.")
    parser.add_argument("-o", "--output", required=True, type=Path, help="Pasta dos dados preparados.")
    parser.add_argument("--tokenizer", required=True, type=Path, help="O tokenizer.json.")
    parser.add_argument("--preset", default="none", help="Limpeza: none, curated ou web.")
    parser.add_argument("--variety", default="any", choices=["any", "br", "pt"])
    parser.add_argument("--mask-personal-data", action="store_true")
    parser.add_argument("--drop-near-duplicates", action="store_true")
    parser.add_argument("--valid-fraction", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=8, help="Em quantas partes dividir a leitura.")
    parser.add_argument("--memory-gb", type=float, default=2, help="Memória reservada por tarefa.")
    parser.add_argument("--work", type=Path, help="Pasta de trabalho (padrão: SAÍDA.trabalho).")
    parser.add_argument("--slurm", metavar="PARTIÇÃO", help="Usa o Slurm em vez do Ray.")
    given = parser.parse_args()
    if not 0 <= given.valid_fraction <= 0.5:
        parser.error("--valid-fraction fica entre 0 e 0.5")

    options = SourceOptions(given.preset, variety=given.variety, mask=given.mask_personal_data)
    recipe = plan(given.entradas, options=options, drop_near_duplicates=given.drop_near_duplicates)
    if STDIN in given.entradas:
        parser.error("a entrada padrão só pode ser lida por um processo")
    recipe = recipe.with_local_inputs()
    files = list(list_files(recipe.sources[0].inputs))
    tokenizer = Tokenizer.load(given.tokenizer)
    # Outra entrada, outras opções ou outro número de tarefas são outro trabalho, em outra pasta.
    stamps = [
        repr(file) if isinstance(file, Skipped) else [str(file), *file.path.stat()[6:9:2]] for file in files
    ]
    choices = [given.tasks, given.valid_fraction, given.seed, given.drop_near_duplicates]
    identity = json.dumps([__version__, tokenizer.sha256, recipe.description(), choices, stamps])
    work = (given.work or Path(f"{given.output}.trabalho")) / hashlib.sha256(identity.encode()).hexdigest()[
        :12
    ]
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    (work / "arquivos.pickle").write_bytes(pickle.dumps(files))
    job = Job(
        recipe, given.tokenizer.absolute(), given.output.absolute(), work,
        given.tasks, given.valid_fraction, given.seed,
    )  # fmt: skip
    if given.slurm:
        run_on_slurm(job, given.memory_gb, given.slurm)
    else:
        run_on_ray(job, given.memory_gb)
        print(f"Dados preparados em {given.output}\nPode apagar a pasta de trabalho: {work.parent}")


if __name__ == "__main__":
    try:
        main()
    except ray.exceptions.RayTaskError as error:  # também é um SlmError, com o rastro todo na mensagem
        sys.exit(str(error.cause))
    except SlmError as error:
        sys.exit(str(error))
