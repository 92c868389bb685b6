"""The one exception of the package, and the one table of its codes.

Every error that a user can cause ends as a `SlmError`: a stable English code, what happened and what to
type next in Portuguese, and the exit code. `docs/erros.md` lists the same table; a test compares the two.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any


class Exit(IntEnum):
    """Exit codes of the command line (docs/erros.md)."""

    OK = 0
    ERROR = 1
    USAGE = 2
    CORRUPT = 3
    VERIFY = 4
    RESOURCE = 5
    STOPPED = 75
    """Stopped by the time limit, SIGTERM or SIGHUP, state saved: run the same command again. (EX_TEMPFAIL)"""
    INTERRUPTED = 130
    """Ctrl-C; state saved."""
    PIPE = 141
    """The reader of standard output left before its end; files were written. (128 + SIGPIPE)"""


_NO_MEMORY = (
    "can't allocate memory",  # PyTorch's allocator on a CPU
    "CUDA error: out of memory",  # torch.AcceleratorError: from the driver, not PyTorch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",  # the first product of a thread on a full card, for cuBLAS's workspace
    "Failed to CUDA calloc",  # NCCL
)
"""What PyTorch says where memory ran out and its exception is no OutOfMemoryError."""


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of any library that we call means that memory ran out. Imports none of them."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("OutOfMemoryError", "OutOfMemory")
        or any(words in text for words in _NO_MEMORY)
    )


CODES: dict[str, tuple[Exit, str]] = {
    # Usage: what was typed cannot be done.
    "E_USAGE": (Exit.USAGE, "argumentos que não existem, faltam ou não combinam"),
    "E_CONFIG": (Exit.USAGE, "configuração desconhecida ou com valor inválido"),
    "E_MODEL_SIZE": (Exit.USAGE, "tamanho de modelo que não existe"),
    "E_SEQ_LEN": (Exit.USAGE, "sequência mais longa que o contexto do modelo, ou inválida"),
    "E_PROMPT": (Exit.USAGE, "texto inicial vazio, ausente ou que não é texto"),
    "E_PROMPT_TOO_LONG": (Exit.USAGE, "texto inicial maior que o contexto do modelo"),
    "E_MESSAGES": (Exit.USAGE, "conversa vazia, ou mensagem sem papel ou conteúdo que conheçamos"),
    "E_SAMPLING": (Exit.USAGE, "opção de geração fora do intervalo, ou forma que não dá para seguir"),
    "E_TASK": (Exit.USAGE, "tarefa de avaliação que não existe ou com erro"),
    "E_LICENCE": (Exit.USAGE, "dados cuja licença não permite todo uso, sem que ele fosse aceito"),
    # Errors of the world around us.
    "E_NOT_FOUND": (Exit.ERROR, "arquivo ou pasta que não existe"),
    "E_PERMISSION": (Exit.ERROR, "sem permissão de leitura ou escrita"),
    "E_IO": (Exit.ERROR, "o sistema de arquivos recusou a operação"),
    "E_OUTPUT": (Exit.ERROR, "a saída padrão não pôde ser escrita"),
    "E_EXISTS": (Exit.ERROR, "o destino já existe e não seria seguro substituí-lo"),
    "E_DATA_EMPTY": (Exit.ERROR, "nenhum texto aproveitável nos dados"),
    "E_DATA_TOO_SMALL": (Exit.ERROR, "dados insuficientes para o que foi pedido"),
    "E_DATA_FORMAT": (Exit.ERROR, "formato de dados que não sabemos ler"),
    "E_TASK_DATA": (Exit.ERROR, "dados de uma tarefa de avaliação ausentes ou quebrados"),
    "E_COMPARE": (Exit.ERROR, "dois resultados que não se podem comparar"),
    "E_DATA_WRONG": (Exit.ERROR, "linhas ou arquivos errados demais numa fonte de dados"),
    "E_FETCH": (Exit.ERROR, "não foi possível baixar os dados"),
    "E_SERVER": (Exit.ERROR, "o servidor do modelo a avaliar não responde como se espera"),
    "E_TOKENIZER_MISSING": (Exit.ERROR, "falta o tokenizador"),
    "E_TOKENIZER_LOSSY": (Exit.ERROR, "o tokenizador perde parte do texto, e a medida seria de outro texto"),
    "E_CHAT_TEMPLATE": (Exit.ERROR, "falta o modelo de conversa (chat template), ou ele recusa a conversa"),
    "E_LOCKED": (Exit.ERROR, "outro processo está usando esta pasta"),
    "E_PROVIDER": (Exit.ERROR, "o dispositivo ou provedor pedido não está disponível"),
    "E_GPU": (Exit.ERROR, "a GPU não serve para esta versão do PyTorch"),
    "E_OPTIMIZER": (Exit.ERROR, "o otimizador pedido não funciona neste dispositivo"),
    "E_RANKS": (Exit.ERROR, "um dos processos do treino morreu vezes demais"),
    "E_DEPENDENCY": (Exit.ERROR, "falta instalar um pacote opcional"),
    "E_TRAINING_DIVERGED": (Exit.ERROR, "a perda deixou de ser um número"),
    "E_PORT": (Exit.ERROR, "a porta ou o endereço não pode ser usado"),
    "E_BUSY": (Exit.ERROR, "a fila do modelo está cheia"),
    "E_REQUEST_SIZE": (Exit.ERROR, "um pedido com mais textos do que a fila do modelo aceita"),
    "E_CLOSED": (Exit.ERROR, "o modelo já foi fechado"),
    "E_INTERNAL": (Exit.ERROR, "erro inesperado: um defeito nosso"),
    # Files that are not what they should be.
    "E_DATA_CORRUPT": (Exit.CORRUPT, "dados preparados truncados ou alterados"),
    "E_TOKENIZER_INVALID": (Exit.CORRUPT, "arquivo de tokenizador inválido"),
    "E_TOKENIZER_MISMATCH": (Exit.CORRUPT, "o tokenizador não é o dos dados ou o do modelo"),
    "E_MODEL_INVALID": (Exit.CORRUPT, "a pasta não é um modelo que sabemos abrir"),
    "E_ADAPTER": (Exit.CORRUPT, "adaptador (LoRA) quebrado, de outro modelo, ou que faz o que não sabemos"),
    "E_DRAFT": (Exit.CORRUPT, "camada de rascunho quebrada, ou de outro modelo"),
    "E_CHECKPOINT_CORRUPT": (Exit.CORRUPT, "checkpoint truncado ou alterado"),
    "E_MANIFEST": (Exit.CORRUPT, "o manifesto falta, está quebrado ou não confere"),
    "E_RESULTS": (Exit.CORRUPT, "resultados de avaliação incompletos, quebrados ou alterados"),
    "E_SCHEMA": (Exit.CORRUPT, "arquivo feito por uma versão mais nova do ptbr-slm"),
    "E_PICKLE": (Exit.CORRUPT, "arquivo pickle (.pt, .bin): pode executar código, não abrimos"),
    "E_CONFIG_CHANGED": (Exit.CORRUPT, "a configuração difere da que está no checkpoint"),
    # Verification and resources.
    "E_VERIFY": (Exit.VERIFY, "o modelo exportado não confere com o PyTorch"),
    "E_DISK_FULL": (Exit.RESOURCE, "disco cheio"),
    "E_MEMORY": (Exit.RESOURCE, "memória insuficiente"),
}
"""code -> (exit code, meaning in Portuguese)."""


class SlmError(Exception):
    """An error with an answer: printed as three lines, never as a traceback (docs/erros.md).

    code: a key of `CODES`. message: what happened. where: the file, option or step it concerns.
    hint: what to type next, with the user's own arguments where they are known.
    """

    def __init__(self, code: str, message: str, *, where: str | Path = "", hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = CODES[code][0]
        self.message = message
        self.where = str(where)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled with all its fields, which `Exception` would lose."""
        rebuild = partial(SlmError, where=self.where, hint=self.hint)
        return rebuild, (self.code, self.message)

    def __str__(self) -> str:
        lines = [f"Erro [{self.code}]: {self.message}"]
        if self.where:
            lines.append(f"  onde: {self.where}")
        lines.append(f"  {self.hint}")
        return "\n".join(lines)


@contextmanager
def os_errors(path: str | Path) -> Iterator[None]:
    """Turn an `OSError` or `MemoryError` raised inside into a `SlmError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from error
    except MemoryError as error:
        raise SlmError(
            "E_MEMORY",
            "a memória do computador acabou.",
            where=path,
            hint="Feche outros programas ou use um arquivo, modelo ou lote menor.",
        ) from error


@contextmanager
def named_instead(temporary: Path, final: Path) -> Iterator[None]:
    """Errors raised inside name `final` where they would name `temporary` or what lies in it.

    For temporary folders: when the error is read, they are no longer there.
    """
    try:
        yield
    except SlmError as error:
        error.message = error.message.replace(str(temporary), str(final))
        error.args = (error.message,)
        error.hint = error.hint.replace(str(temporary), str(final))
        if str(temporary) in error.where:
            error.where = str(final)
        raise
    except OSError as error:
        if str(temporary) in str(error.filename):
            raise from_os_error(error, final) from error
        raise


def from_os_error(error: OSError, path: str | Path) -> SlmError:
    """The `SlmError` for an `OSError` met at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SlmError(
            "E_DISK_FULL",
            "o disco está cheio; os arquivos anteriores continuam intactos.",
            where=path,
            hint="Libere espaço (veja com: df -h) e repita o mesmo comando.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SlmError(
            "E_PERMISSION",
            "sem permissão para ler ou escrever aqui.",
            where=path,
            hint="Escolha outra pasta de saída, ou corrija a permissão com chmod/chown.",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SlmError(
            "E_NOT_FOUND",
            "o caminho não existe.",
            where=path,
            hint="Confira o caminho (ls) e repita o comando.",
        )
    return SlmError(
        "E_IO",
        f"o sistema de arquivos recusou a operação ({error.strerror or error}).",
        where=path,
        hint="Confira o caminho e o espaço em disco; com --debug aparece o erro completo.",
    )


EXTRA_OF = {
    "torch": "train",
    "pyarrow": "data",
    "zstandard": "data",
    "ftfy": "data",
    "rensa": "data",
    "validate_docbr": "data",
    "py3langid": "data",
    "selectolax": "data",
    "mwparserfromhell": "data",
    "matplotlib": "data",
    "psutil": "train",
    "sentencepiece": "data",
    "requests": "data",
    "onnxruntime": "cpu",
    "onnx": "export",
    "onnx_ir": "export",
    "gguf": "export",
    "gradio": "app",
    "fastapi": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "yaml": "eval",
    "lm_eval": "lm-eval",
    "llguidance": "constrain",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Optional package -> the pip extra that brings it."""


def missing_extra(package: str) -> SlmError:
    """The error for an optional package (a key of `EXTRA_OF`) that is not installed."""
    return SlmError(
        "E_DEPENDENCY",
        f"esta operação precisa do pacote {package}, que não está instalado.",
        where=f"pip: extra [{EXTRA_OF[package]}]",
        hint=f'Instale com:  pip install "ptbr-slm[{EXTRA_OF[package]}]"',
    )
