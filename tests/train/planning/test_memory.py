"""The planner's bytes against what PyTorch really keeps and allocates, on small shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptbr_slm.config import SIZES, ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.system import bf16_units
from ptbr_slm.train.batches import random_batch
from ptbr_slm.train.planning.memory import GIB, MemoryEstimate, estimate, fits_t4, saved_tensors
from ptbr_slm.train.planning.precision import Precision

torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")

from ptbr_slm.model import Llama  # noqa: E402
from ptbr_slm.train.planning.activations import measured_peak_bytes, measured_saved_bytes  # noqa: E402
from ptbr_slm.train.step import autocast  # noqa: E402

GROUPED = ModelConfig(vocab_size=512, hidden_size=128, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=32,
                      intermediate_size=320, max_seq_len=256)  # fmt: skip
SHAPES = {
    "grouped": GROUPED,
    "wide vocabulary": replace(GROUPED, vocab_size=4096, num_layers=2),
    "one key head": replace(
        GROUPED, vocab_size=300, hidden_size=256, num_kv_heads=1, head_dim=64, num_layers=3
    ),
    "normalised heads": replace(GROUPED, qk_norm=True),
    "all key heads, untied": replace(GROUPED, num_kv_heads=4, tie_embeddings=False, num_layers=2),
}
LENGTHS = [(1, 32), (2, 128)]
POLICIES = [0, 1, 2]
PRECISIONS = {"fp32": Precision("fp32", ""), "bf16": Precision("bf16", "")}
"""bf16 stands for fp16, which costs the same bytes: on the CPU it needs no loss scaling."""


LOSSES = ["chunked", "formed in forward", "plain"]


def network(model: ModelConfig, every: int, loss: str = "chunked") -> Llama:
    made = Llama(model).initialize(0).train()
    made.checkpoint_every = every
    made.loss = "plain" if loss == "plain" else "chunked"
    if loss == "formed in forward":
        made.backward_scale = torch.tensor(1.0)
    return made


def forward(llama: Llama, batch_size: int, seq_len: int, precision: Precision) -> torch.Tensor:
    """The loss of one micro-batch, computed as `train` does."""
    batch = random_batch(llama.config.vocab_size, batch_size, seq_len).to(torch.device("cpu"))
    with autocast(torch.device("cpu"), precision):
        return llama.loss_sum(batch.tokens, batch.targets)


def measured_saved(llama: Llama, batch_size: int, seq_len: int, precision: Precision) -> int:
    return measured_saved_bytes(llama, lambda: forward(llama, batch_size, seq_len, precision))


def measured_peak(llama: Llama, batch_size: int, seq_len: int, precision: Precision) -> int:
    return measured_peak_bytes(lambda: forward(llama, batch_size, seq_len, precision))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("every", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["chunked", "plain"])
def test_saved_tensors_are_those_that_autograd_keeps(
    loss: str, shape: str, every: int, precision: str
) -> None:
    model = SHAPES[shape]
    for batch_size, seq_len in LENGTHS:
        predicted = saved_tensors(
            model,
            batch_size=batch_size,
            seq_len=seq_len,
            checkpoint_every=every,
            precision=precision,
            device="cpu",
            loss=loss,
        )
        measured = measured_saved(network(model, every, loss), batch_size, seq_len, PRECISIONS[precision])
        assert predicted == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("every", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_predicted_peak_is_the_allocators_within_ten_percent(
    loss: str, shape: str, every: int, precision: str
) -> None:
    model = SHAPES[shape]
    predicted = estimate(
        model,
        batch_size=2,
        seq_len=256,
        checkpoint_every=every,
        precision=precision,
        device="cpu",
        loss="plain" if loss == "plain" else "chunked",
    )
    measured = measured_peak(network(model, every, loss), 2, 256, PRECISIONS[precision])
    emulated = precision == "bf16" and bf16_units() is None  # oneDNN may multiply with an fp32 copy
    of_onednn = 4 * model.vocab_size * model.hidden_size if emulated else 0
    assert 0.9 * measured - of_onednn <= transient(predicted) <= 1.1 * measured


def transient(e: MemoryEstimate) -> int:
    return e.autocast_cache + e.activations + e.logits + e.workspace


def on_t4(size: str, batch_size: int, seq_len: int, every: int) -> MemoryEstimate:
    return estimate(
        SIZES[size], batch_size=batch_size, seq_len=seq_len, checkpoint_every=every, precision="fp16"
    )


def test_weights_gradients_and_adamw_take_sixteen_bytes_a_parameter() -> None:
    for size, model in SIZES.items():
        e = on_t4(size, 1, 256, 0)
        assert e.weights + e.gradients + e.optimizer == 16 * model.num_parameters


def test_checkpointing_takes_activations_away_and_nothing_else() -> None:
    none, half, full = (on_t4("400m", 4, 1024, every) for every in (0, 2, 1))
    assert none.activations > half.activations > full.activations
    assert none.weights == full.weights and none.optimizer == full.optimizer
    assert full.total < half.total < none.total


def test_activations_grow_linearly_with_tokens() -> None:
    one, four = on_t4("85m", 2, 256, 0), on_t4("85m", 8, 256, 0)
    assert four.activations == pytest.approx(4 * one.activations, rel=0.01)
    assert four.logits < 4 * one.logits  # one chunk of them


def test_logits_of_8k_tokens_take_a_third_of_a_gibibyte_in_chunks_and_two_at_once() -> None:
    sizes = {
        loss: estimate(
            SIZES["85m"], batch_size=8, seq_len=1024, checkpoint_every=0, precision="fp16", loss=loss
        )
        for loss in ("chunked", "plain")
    }
    assert sizes["chunked"].logits <= 0.35 * GIB < 2 * GIB < sizes["plain"].logits


def test_copies_of_recomputed_layers_are_not_kept_so_an_800m_fits_a_t4() -> None:
    """Autocast's cache of cast weights would hold 1.4 GiB more (`train.step.autocast`)."""
    e = on_t4("800m", 1, 1024, 1)
    assert e.autocast_cache < 0.1 * GIB and fits_t4(e)


def test_the_85m_trains_on_a_t4_and_a_large_batch_of_800m_does_not() -> None:
    assert fits_t4(on_t4("85m", 8, 1024, 0))
    assert not fits_t4(on_t4("800m", 8, 1024, 0))
    assert 5 * GIB < on_t4("400m", 2, 256, 0).total < 9 * GIB


def test_fp32_on_the_cpu_has_no_copies_and_no_context() -> None:
    e = estimate(SIZES["nano"], batch_size=2, seq_len=64, checkpoint_every=0, precision="fp32", device="cpu")
    assert e.autocast_cache == 0 and e.context == 0


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"precision": "fp8"}, "--precision"),
        ({"optimizer": "sgd"}, "--optimizer"),
        ({"loss": "liger"}, "--loss"),
        ({"batch_size": 0}, "--batch-size"),
        ({"seq_len": -1}, "--seq-len"),
        ({"checkpoint_every": -1}, "--checkpointing"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_flag(change: dict[str, object], flag: str) -> None:
    good: dict[str, object] = {"batch_size": 1, "seq_len": 64, "checkpoint_every": 0, "precision": "fp32"}
    with pytest.raises(SlmError) as caught:
        estimate(GROUPED, **(good | change))  # type: ignore[arg-type]
    assert caught.value.code == "E_CONFIG" and caught.value.where == flag


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_peak_holds_where_the_loss_takes_several_chunks(precision: str) -> None:
    """With 32,000 tokens a chunk has 524 rows on a CPU, where adding the second's gradient costs a cast."""
    model = replace(GROUPED, vocab_size=32_000, num_layers=1, max_seq_len=600)
    predicted = estimate(
        model, batch_size=1, seq_len=600, checkpoint_every=1, precision=precision, device="cpu"
    )
    measured = measured_peak(network(model, 1, "formed in forward"), 1, 600, PRECISIONS[precision])
    assert transient(predicted) == pytest.approx(measured, rel=0.05)
