"""The table of codes, the three-line form, and the page that documents both."""

import errno
import re
from pathlib import Path

import pytest

from ptbr_slm.errors import (
    CODES,
    Exit,
    SlmError,
    from_os_error,
    named_instead,
    os_errors,
    says_out_of_memory,
)

ROOT = Path(__file__).resolve().parents[1]


def test_docs_list_exactly_the_codes_of_the_code():
    rows = re.findall(
        r"^\| `(E_[A-Z_]+)` \| (\d+) \| (.+?) \|", (ROOT / "docs/erros.md").read_text(), re.MULTILINE
    )
    documented = {code: (int(number), meaning) for code, number, meaning in rows}
    assert documented == {code: (int(number), meaning) for code, (number, meaning) in CODES.items()}


def test_every_code_in_the_sources_is_in_the_table_and_every_row_is_used():
    sources = [*ROOT.glob("ptbr_slm/**/*.py"), *ROOT.glob("export/**/*.py")]
    used = set()
    for source in sources:
        if source.name != "errors.py":
            used |= set(re.findall(r'"(E_[A-Z_]+)"', source.read_text()))
    helpers = set(re.findall(r'SlmError\(\s*"(E_[A-Z_]+)"', (ROOT / "ptbr_slm/errors.py").read_text()))
    assert used | helpers == set(CODES)


def test_an_error_is_three_lines_what_where_and_what_to_type():
    text = str(SlmError("E_NOT_FOUND", "o caminho não existe.", where="/nada", hint="ls"))
    assert text.splitlines() == ["Erro [E_NOT_FOUND]: o caminho não existe.", "  onde: /nada", "  ls"]


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.ENOSPC, "E_DISK_FULL", Exit.RESOURCE),
        (errno.EDQUOT, "E_DISK_FULL", Exit.RESOURCE),
        (errno.EROFS, "E_PERMISSION", Exit.ERROR),
        (errno.EACCES, "E_PERMISSION", Exit.ERROR),
        (errno.ENOENT, "E_NOT_FOUND", Exit.ERROR),
        (errno.EISDIR, "E_IO", Exit.ERROR),
    ],
)
def test_an_os_error_gets_the_code_of_its_cause(number, code, exit_code):
    error = from_os_error(OSError(number, "x"), "/p")
    assert (error.code, error.exit_code) == (code, exit_code)


@pytest.mark.parametrize(
    "error",
    [
        SlmError("E_MANIFEST", "falta /p/.tmp-x/a.", where="/p/.tmp-x/a", hint="ls '/p/.tmp-x/a'"),
        OSError(errno.ENOSPC, "No space left", "/p/.tmp-x/a"),
    ],
)
def test_onde_names_no_temporary_folder_that_is_gone(error):
    with pytest.raises(SlmError) as caught, named_instead(Path("/p/.tmp-x"), Path("/p/x")):
        raise error
    assert "tmp" not in str(caught.value) and caught.value.where == "/p/x"


def test_memory_error_inside_os_errors_is_answered():
    with pytest.raises(SlmError) as caught, os_errors("p"):
        raise MemoryError
    assert caught.value.code == "E_MEMORY"


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("NCCL error: unhandled cuda error, Failed to CUDA calloc async 4 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_out_of_memory_is_recognised_in_whatever_words_it_comes(error, memory):
    assert says_out_of_memory(error) == memory
