"""What the benchmark of gradient noise takes for the gradient of a sample, and what it makes of many."""

import math
import runpy
import sys

import lightning as L
import pytest
import torch

from lightning_sal.evaluation.comparison import restore
from tests.docs.pages import ROOT, in_checkout

pytestmark = [in_checkout, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def noise(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gradient_noise  # pyright: ignore[reportMissingImports]  of benchmarks

    return gradient_noise


class Gradients(L.Callback):
    """What the optimiser is given in each step."""

    def __init__(self):
        self.rows = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rows.append(torch.cat([parameter.grad.flatten() for parameter in pl_module.trainable().values()]))


@pytest.mark.parametrize("arm", ["cgpo", "cgpo_scaled", "grpo"])
def test_the_mean_over_samples_is_the_gradient_of_the_step(noise, arm):
    config = noise.config_of(arm, *noise.seeded(3), "--model.init_args.temperature=2")  # so that rewards differ
    start, batches = noise.start_of(config, steps=1), noise.fresh_prompts(config, size=4, batches=3)
    module, singles = noise.measured(config, batches, start)
    assert singles.gradients.shape[0] == 4  # all are trained: CGPO always, GRPO for its KL term
    assert all(torch.equal(p, start[name]) for name, p in module.trainable().items())

    plain, steps = noise.module_of(config), Gradients()
    restore(plain, start)
    noise.without_steps(plain)
    noise.fit(plain, batches, None, [steps])
    before, (last,) = torch.stack(steps.rows[:2]), steps.rows[2:]
    assert (singles.gradients.mean(0) - last).norm() < 1e-5 * last.norm()
    assert (singles.before - before.mean(0)).norm() < 1e-5 * before.mean(0).norm()


def test_three_gradients_by_hand(noise):
    # mean (2, 1); deviations (-1, -1), (1, -1), (0, 2): trace (2 + 2 + 4) / 2 = 4; signal 5 - 4 / 3 = 11 / 3
    gradients = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]])
    found = noise.noise(noise.products(gradients, 3))
    assert found["norm"] == pytest.approx(math.sqrt(5))
    assert found["trace"] == pytest.approx(4)
    assert found["signal"] == pytest.approx(11 / 3)
    assert found["B"] == pytest.approx(12 / 11)
    assert found["mean/rms"] == pytest.approx(math.sqrt(5 / (23 / 3)))
    assert found["mean/norm"] == pytest.approx(math.sqrt(5) / ((1 + 3 + math.sqrt(13)) / 3))
    assert noise.toward(torch.tensor([0.0, 2.0]), gradients, 3) == pytest.approx(1)  # 0, 0, 6: 2 over 3.46 / sqrt(3)


def test_samples_without_a_gradient_count(noise):
    gradients = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    padded = torch.cat([gradients, torch.zeros(2, 7)])
    short, long = (noise.noise(noise.products(each, 7)) for each in (gradients, padded))
    assert short == pytest.approx(long)
    assert noise.toward(torch.ones(7), gradients, 7) == pytest.approx(noise.toward(torch.ones(7), padded, 7))


def test_the_error_of_the_noise_scale_is_that_of_leaving_each_out(noise):
    products = noise.products(torch.randn(9, 4, generator=torch.Generator().manual_seed(1)) + 2, 9)
    kept = [[other for other in range(9) if other != left] for left in range(9)]
    each = torch.tensor([noise.noise_scale(products[rows][:, rows])[0] for rows in kept])
    expected = math.sqrt(8 / 9 * ((each - each.mean()) ** 2).sum())
    assert noise.noise_scale(products)[1] == pytest.approx(expected, rel=1e-4)


def test_equal_gradients_are_signal_alone_and_opposite_ones_noise_alone(noise):
    row = torch.tensor([1.0, 2.0])
    equal = noise.noise(noise.products(row.repeat(4, 1), 4))
    assert (equal["B"], equal["cosine"], equal["mean/rms"]) == pytest.approx((0, 1, 1))
    opposite = noise.noise(noise.products(torch.stack([row, -row, row, -row]), 4))
    assert opposite["B"] == math.inf
    assert opposite["mean/rms"] == 0


def test_it_prints_its_table_and_overwrites_nothing(noise, monkeypatch, tmp_path, capsys):
    file = tmp_path / "noise.jsonl"
    script = str(ROOT / "benchmarks/gradient_noise.py")
    arguments = ["--arms", "cgpo", "rloo", "--prompts", "3", "--warmup", "1", "--reference", "2", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(script, run_name="__main__")
    assert "B responses" in capsys.readouterr().out
    assert len(file.read_text().splitlines()) == 2
    with pytest.raises(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "is there already" in capsys.readouterr().err
