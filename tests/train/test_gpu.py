"""What only a CUDA card can show about training: `pytest -m gpu`. Under T4 rules: fp16 with GradScaler.

The user's commands run every day on a simulated card, too: tests/train/test_simulated_commands.py.
"""

import gpu_scenarios_train as scenarios
import numpy as np
import pytest
import torch

from ptbr_slm.config import ModelConfig
from ptbr_slm.loss import linear_cross_entropy
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import random_batch
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.planning.memory import estimate
from ptbr_slm.train.planning.precision import choose_precision
from ptbr_slm.train.step import optimizer_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(),
        reason="precisa de uma GPU CUDA: rode no Kaggle (T4) com  pytest -m gpu",
    ),
]

two_cards = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="precisa de duas GPUs")


@pytest.fixture
def run(cli):
    """The user's command, with the precision of a T4 whatever the card."""

    def start(*arguments, **environment):
        plain = arguments[0] == "bench" or 'device="cpu"' in arguments
        precision = () if plain else ("--precision", "fp16")
        return cli(*arguments, *precision, env=environment, timeout=280)

    return start


def test_a_run_goes_from_nothing_to_final_and_on_after_a_kill(run, train_arguments, tmp_path):
    scenarios.trains_from_nothing_to_final_and_goes_on_after_a_kill(
        run, train_arguments, tmp_path, exact=False
    )


@two_cards
def test_two_cards_go_from_nothing_to_final_and_on_after_a_kill(run, train_arguments, tmp_path):
    scenarios.trains_from_nothing_to_final_and_goes_on_after_a_kill(
        run, train_arguments, tmp_path, exact=False, ranks=2
    )


@two_cards
def test_two_cards_train_as_one(run, train_arguments, tmp_path):
    scenarios.two_cards_train_as_one(run, train_arguments, tmp_path)


def test_other_commands_use_the_card(run, train_arguments, tmp_path):
    scenarios.other_commands_use_the_card(run, train_arguments, tmp_path)


def test_bench_train_measures_the_card(run):
    scenarios.bench_train_measures_the_card(run)


CONFIG = ModelConfig(
    vocab_size=8192,
    hidden_size=512,
    num_layers=6,
    num_heads=8,
    num_kv_heads=2,
    intermediate_size=1408,
    max_seq_len=512,
)
ROWS, LENGTH = 8, 512


def train_steps(steps: int, checkpoint_every: int) -> list[float]:
    """Losses of a few fp16 steps on one repeated batch."""
    model = Llama(CONFIG).to("cuda").initialize(0).train()  # in the order of the trainer
    model.checkpoint_every = checkpoint_every
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=1e-3))
    scaler = torch.amp.GradScaler("cuda")
    batch = random_batch(CONFIG.vocab_size, ROWS, LENGTH)
    precision = choose_precision("cuda", (7, 5), "auto")
    results = [
        optimizer_step(model, optimizer, [batch], precision=precision, scaler=scaler, gradient_clip=1.0)
        for _ in range(steps)
    ]
    return [result.loss for result in results if result.applied]


def test_fp16_with_a_scaler_learns_on_the_card():
    losses = train_steps(12, checkpoint_every=0)
    assert len(losses) >= 8  # a few steps are skipped while the scale settles
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("checkpoint_every", [0, 1])
def test_the_planner_is_within_15_percent_of_the_measured_peak(checkpoint_every):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train_steps(3, checkpoint_every)
    measured = torch.cuda.max_memory_allocated() - before
    planned = estimate(
        CONFIG, batch_size=ROWS, seq_len=LENGTH, checkpoint_every=checkpoint_every, precision="fp16"
    )
    assert abs((planned.total - planned.context) / measured - 1) < 0.15


@pytest.mark.parametrize("tokens", [1_024, 524_288])
@pytest.mark.parametrize("known", [True, False])
def test_chunked_loss_in_fp16_is_within_one_in_a_thousand_of_fp32_on_the_card(tokens, known):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(2048, 256, generator=draw).cuda().requires_grad_()
    weight = (torch.randn(32_000, 256, generator=draw) * 0.05).cuda().requires_grad_()
    targets = torch.randint(0, 32_000, (2048,), generator=draw).cuda()
    factor = 65_536 / tokens
    exact = torch.nn.functional.cross_entropy(hidden @ weight.t(), targets, reduction="sum")
    wanted = torch.autograd.grad(exact * factor, (hidden, weight))
    with torch.autocast("cuda", torch.float16):
        scale = torch.tensor(factor, device="cuda") if known else None
        loss = linear_cross_entropy(hidden, weight, targets, scale=scale, rows=512)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)
    for found, right in zip(torch.autograd.grad(loss * factor, (hidden, weight)), wanted, strict=True):
        assert found.isfinite().all() and float((found - right).norm() / right.norm()) < 1e-3
