"""What a card, a driver or a PyTorch that do not go together are answered: before anything is written, with
what to type. The cards are pretended (tests/support/fake_cards.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from fake_cards import A100, FUTURE, GTX_1650, P100, V100, Card, nvidia_smi, torch_sees
from typer.testing import CliRunner

from ptbr_slm.bench.train import Case
from ptbr_slm.bench.train_measure import measure
from ptbr_slm.cli.main import app
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.train.planning import devices
from ptbr_slm.train.planning.plan import Plan, check_device, make_plan

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version {}). Please update your GPU driver by "
    "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx "
    "Alternatively, go to: https://pytorch.org to install a PyTorch version that has been compiled with your "
    "version of the CUDA driver."
)
T4 = Card()
SECOND = replace(T4, uuid="c8a4f2d1-1111-1111-1111-111111111111")

Shown = Callable[..., str]


@pytest.fixture
def shown(monkeypatch, tmp_path, prepared) -> Shown:
    """Run a verb on the tiny data in this process, and give back its error: three lines, nothing written."""

    def run(verb: str, *arguments: str, code: int = 1) -> str:
        output = tmp_path / "run"
        where = ["--output", str(output)] if verb == "train" else []
        common = ["--data", str(prepared.folder), "--set", "seq_len=16", "--set", "model_size=nano"]
        done = CliRunner().invoke(app, [verb, *common, *where, *arguments])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output and not output.exists()
        return done.stderr

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return run


@pytest.fixture
def driver(monkeypatch, tmp_path) -> Callable[..., None]:
    """Put a nvidia-smi that lists these cards on this process's PATH."""

    def put(*cards: Card, unknown: tuple[str, ...] = ()) -> None:
        monkeypatch.setenv("PATH", nvidia_smi(tmp_path, *cards, unknown=unknown)["PATH"])

    return put


@pytest.fixture
def plan(settings, prepared) -> Callable[..., Plan]:
    """The plan of a run on the pretended cards."""

    def make(ranks: int = 1, **values: object) -> Plan:
        return make_plan(settings(values), prepared.load_tokenizer(), ranks)

    return make


def refused(call: Callable[..., object], *args: object, **values: object) -> SlmError:
    with pytest.raises(SlmError) as caught:
        call(*args, **values)
    return caught.value


def lines(text: str) -> list[str]:
    """The error: the last three lines of the output."""
    return text.strip().splitlines()[-3:]


VERBS = [("train",), ("train", "--dry-run"), ("find-lr",)]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_every_verb_that_trains_refuses_a_p100(monkeypatch, shown, verb, device):
    torch_sees(monkeypatch, P100)
    what, where, hint = lines(shown(*verb, "--set", f"device={device}"))
    assert what.startswith("Erro [E_GPU]") and "sm_60" in where and "GPU T4 x2" in hint


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize(
    ("card", "archs", "cure"),
    [
        (V100, ("sm_75", "sm_80", "sm_90", "compute_90"), "cu126"),
        (FUTURE, ("sm_75", "sm_80", "sm_120"), "pip install -U torch"),
        (A100, ("sm_75", "sm_90"), "cu126"),
    ],
    ids=["older", "newer", "between"],
)
def test_a_card_that_this_pytorch_has_no_kernels_for_is_refused(monkeypatch, shown, verb, card, archs, cure):
    torch_sees(monkeypatch, card, archs=archs)
    what, where, hint = lines(shown(*verb))
    assert what.startswith("Erro [E_GPU]") and card.name in what and archs[0] in what
    assert "sm_" in where and cure in hint and "device=cpu" in hint


def test_ptx_in_the_build_serves_a_later_card(monkeypatch, plan):
    torch_sees(monkeypatch, FUTURE)  # CU128 ends with compute_120
    assert plan(model_size="nano").precision.name == "bf16"


def test_bench_train_answers_a_p100_with_the_code(monkeypatch, tmp_path):
    torch_sees(monkeypatch, P100)
    result = measure(Case(size="nano", label="", device="cuda", seq_len=16, seconds=1.0), tmp_path)
    assert result.status == "error" and result.reason.startswith("E_GPU") and "sm_60" in result.reason


def test_bf16_asked_on_a_t4_is_refused_and_never_chosen(monkeypatch, shown, plan):
    torch_sees(monkeypatch, T4)
    assert torch.cuda.is_bf16_supported()
    assert plan(model_size="nano").precision.name == "fp16"
    for verb in VERBS:
        what, where, hint = lines(shown(*verb, "--set", "precision=bf16", code=2))
        assert what.startswith("Erro [E_CONFIG]") and "--precision bf16" in where and "fp16" in hint


@pytest.mark.parametrize("pair", [(A100, T4), (T4, A100)], ids=["T4 second", "T4 first"])
def test_the_lesser_of_two_cards_decides_precision_and_memory(monkeypatch, plan, pair):
    torch_sees(monkeypatch, *pair)
    made = plan(ranks=2, model_size="85m")
    assert made.precision.name == "fp16" and made.machine.memory_bytes == T4.total
    assert "as GPUs não são iguais" in made.notes[0] and "Tesla T4" in made.notes[0]
    assert made.machine.device == plan_device(monkeypatch, plan)


def plan_device(monkeypatch, plan):
    """What limits a step on a T4 alone."""
    torch_sees(monkeypatch, T4)
    return plan(model_size="85m").machine.device


def test_a_p100_beside_a_t4_is_left_out_by_name(monkeypatch, plan, settings):
    torch_sees(monkeypatch, T4, P100)
    error = refused(plan, ranks=2)
    assert error.code == "E_GPU" and error.message.startswith("GPU 1: a Tesla P100")
    assert "CUDA_VISIBLE_DEVICES=0 ptbr-slm train" in error.hint
    assert plan(ranks=1).precision.name == "fp16"  # the first card alone can
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert refused(check_device, settings()).code == "E_GPU"  # on every rank, before anything is prepared


def test_torchrun_with_more_ranks_than_cards_is_refused(monkeypatch, settings):
    torch_sees(monkeypatch, T4)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    error = refused(check_device, settings())
    assert error.code == "E_CONFIG" and "2 processos não cabem em 1 GPU" in error.message


def test_of_two_cards_the_busy_one_is_planned_for_and_named(monkeypatch, plan):
    monkeypatch.setenv("PATH", "")
    torch_sees(monkeypatch, T4, replace(SECOND, taken=9.0))
    made = plan(ranks=2, model_size="85m", batch_size="auto", grad_accum=1)
    assert made.memory.total < (T4.gib - 8.5) * (1 << 30)
    note = next(note for note in made.notes if "outro programa" in note)
    assert "GPU 1 (Tesla T4)" in note and "CUDA_VISIBLE_DEVICES=0 ptbr-slm train ... --parallel none" in note


def test_the_other_cards_memory_is_asked_of_the_driver_and_not_through_cuda(monkeypatch, plan, driver):
    """Asking CUDA would leave a context of the main rank on every card."""
    driver(SECOND, replace(T4, taken=9.0))  # in another order than CUDA's
    torch_sees(monkeypatch, SECOND, T4)
    asked: list[int] = []
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda index: (asked.append(index), (T4.free, T4.total))[1]
    )
    note = plan(ranks=2, model_size="85m").notes[0]
    assert "GPU 1" in note and "8," in note and asked == [0]


def test_the_first_of_two_cards_busy_names_the_second_to_train_on_alone(monkeypatch, plan):
    torch_sees(monkeypatch, replace(T4, taken=13.0), SECOND)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    note = next(note for note in plan(model_size="nano").notes if "outro programa" in note)
    assert "GPU 0 (Tesla T4)" in note and "CUDA_VISIBLE_DEVICES=5" in note
    shape = {"model_size": "400m", "model.num_layers": 24, "model.intermediate_size": 4096}
    error = refused(plan, seq_len=1024, batch_size=1, **shape)
    assert error.code == "E_MEMORY" and "CUDA_VISIBLE_DEVICES=5" in error.hint


def test_a_card_of_4_gb_gets_choices_that_fit_and_trains_the_smaller_model(monkeypatch, plan, shown):
    torch_sees(monkeypatch, GTX_1650)
    text = shown("train", "--dry-run", "--set", "model_size=400m", "--seq-len", "64", code=5)
    assert "Erro [E_MEMORY]" in text and "a GPU tem 3,8 GiB" in text and "--model-size" in text
    offered = text.split("--model-size ")[1].split()[0]
    made = plan(model_size=offered, seq_len=64, batch_size="auto", grad_accum=1)
    assert made.memory.total <= GTX_1650.total and made.precision.name == "fp16"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("release", "version", "cuda", "cure"),
    [
        ("470.57", 11040, "12.8", "525"),
        ("550.54.14", 12040, "13.0", "whl/cu126"),
        ("470.57", 11040, "13.0", "580"),
    ],
)
def test_a_driver_too_old_for_pytorch_never_becomes_a_night_on_the_processor(
    monkeypatch, shown, driver, verb, device, release, version, cuda, cure
):
    driver(replace(T4, driver=release), unknown=("compute_cap",) if release < "510" else ())
    torch_sees(monkeypatch, cuda=cuda, why=TOO_OLD.format(version))
    what, where, hint = lines(shown(*verb, "--set", f"device={device}"))
    assert what.startswith("Erro [E_GPU]") and "antigo demais" in what and f"CUDA {version // 1000}." in what
    assert release in where and cure in hint and "--set device=cpu" in hint


def test_a_card_that_pytorch_refuses_for_another_reason_repeats_its_words(monkeypatch, plan, driver):
    driver(T4)
    torch_sees(monkeypatch, why="CUDA unknown error - this may be due to an incorrectly set up environment")
    error = refused(plan)
    assert error.code == "E_GPU" and "CUDA unknown error" in error.message and "nvidia-smi" in error.hint


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_cards_are_a_wish_that_is_told(monkeypatch, plan, driver, visible):
    driver(T4)
    torch_sees(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    made = plan()
    assert made.device.type == "cpu" and "esconde a Tesla T4" in made.notes[0]
    assert "unset CUDA_VISIBLE_DEVICES" in made.notes[0]
    error = refused(plan, device="cuda")
    assert error.code == "E_PROVIDER" and error.where == "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize("visible", ["2", "7,0", "GPU-ffffffff"])
def test_a_card_index_that_is_not_there_is_a_mistake(monkeypatch, plan, driver, visible):
    driver(T4, SECOND)
    torch_sees(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    error = refused(plan)
    assert error.code == "E_PROVIDER" and f"CUDA_VISIBLE_DEVICES={visible} pede uma GPU" in error.message
    assert "GPUs de 0 a 1" in error.message and "unset" in error.hint


def test_an_index_too_many_is_told_where_others_are_there(monkeypatch, plan):
    torch_sees(monkeypatch, T4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    assert "pede 2 GPUs, e o PyTorch vê 1" in plan().notes[0]


def test_a_kaggle_notebook_without_gpu_is_told_where_the_switch_is(monkeypatch, plan):
    monkeypatch.setenv("PATH", "")
    torch_sees(monkeypatch, cuda=None)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert "Accelerator" in plan().notes[0]
    assert "Accelerator" in refused(plan, device="cuda").hint


def test_a_pytorch_for_the_processor_beside_a_card_is_told_by_the_real_command(
    cli, tmp_path, train_arguments
):
    if torch.version.cuda is not None:
        pytest.skip("este PyTorch tem CUDA; o teste precisa do de processador")
    environment = nvidia_smi(tmp_path, T4)
    arguments = [*train_arguments(tmp_path / "run"), "--dry-run"]
    result = cli(*arguments, env=environment)
    assert (
        result.returncode == 0 and "só para processador" in result.stdout and "pip install" in result.stdout
    )
    done = cli(*arguments, "--set", 'device="cuda"', env=environment)
    assert done.returncode == 1 and done.stderr.startswith("Erro [E_PROVIDER]"), done.stderr
    assert "só para processador" in done.stderr and "Traceback" not in done.stderr


def test_a_driver_too_old_to_tell_the_capability_still_lists_its_card(cli, tmp_path):
    """Before release 510 nvidia-smi refuses a question in which compute_cap stands."""
    environment = nvidia_smi(tmp_path, replace(T4, driver="470.57"), unknown=("compute_cap",))
    done = cli("doctor", env=environment)
    assert "GPU 0: Tesla T4, 14,6 GiB, driver 470.57" in done.stdout


def test_attention_is_called_as_the_memory_efficient_kernel_wants_it(monkeypatch):
    """Keys and values once a query head, no mask: below sm_80 neither flash nor enable_gqa is to be had."""
    from ptbr_slm.config import model_config

    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, *rest, **options):
        calls.append((q.shape, k.shape, v.shape, rest, options))
        return attend(q, k, v, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    config = model_config("mini", vocab_size=300, max_seq_len=16)
    model = Llama(config).initialize(0)
    tokens = torch.zeros(1, 8, dtype=torch.long)
    model.loss_sum(tokens, tokens).backward()
    assert config.num_heads > config.num_kv_heads and len(calls) >= config.num_layers
    for q, k, v, rest, options in calls:
        assert q == k == v and not rest and options.get("attn_mask") is None
        assert options["is_causal"] and not options.get("enable_gqa")


def test_the_plain_attention_is_told_with_what_it_would_cost(monkeypatch, plan):
    torch_sees(monkeypatch, T4)
    assert not any("«math»" in note for note in plan(model_size="nano").notes)
    seen = []
    monkeypatch.setattr(devices, "can_use_flash_attention", lambda given: False)
    monkeypatch.setattr(devices, "can_use_efficient_attention", lambda given: seen.append(given) or False)
    values = {"model_size": "85m", "seq_len": 1024, "batch_size": 4, "checkpointing": "none"}
    made = plan(**{"model.num_layers": 12, **values})
    note = next(note for note in made.notes if "«math»" in note)
    heads, layers = made.model.num_heads, made.model.num_layers
    assert f"{4 * layers * 4 * heads * 1024**2 / (1 << 30):.2f}".replace(".", ",") in note
    assert "--checkpointing full" in note
    assert seen[0].is_causal and seen[0].attn_mask is None and not seen[0].enable_gqa
    assert "«math»" not in " ".join(plan(device="cpu").notes)


def test_the_plain_attention_keeps_a_matrix_a_layer_as_the_note_says():
    """The saved tensors of the math kernel, counted on the CPU in fp32."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, heads, tokens, width = 2, 3, 64, 16
    q = torch.randn(batch, heads, tokens, width, requires_grad=True)
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, sdpa_kernel(SDPBackend.MATH):
        out = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    matrix = 4 * batch * heads * tokens**2
    assert out.requires_grad and matrix <= sum(size for size in sizes.values()) <= 2 * matrix


def test_doctor_strict_fails_where_train_would_refuse(cli, tmp_path):
    """The real command with a driver's tool that lists a P100; without --strict the machine is usable."""
    environment = nvidia_smi(tmp_path, P100)
    plain, strict = cli("doctor", env=environment), cli("doctor", "--strict", env=environment)
    assert (plain.returncode, strict.returncode) == (0, 1)
    assert "problema" in strict.stdout and "sm_60" in strict.stdout and "T4 x2" in strict.stdout
