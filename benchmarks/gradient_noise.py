"""How much noise the gradient of each RL algorithm has, on the same prompts and from the same weights.

    uv run python benchmarks/gradient_noise.py
    uv run python benchmarks/gradient_noise.py --arms cgpo batch_loo grpo --prompts 512 --json noise.jsonl

Every arm, a file of conf/rl, samples responses to the same N fresh prompts with the same weights: those of the embedded
policy after the SFT steps that the arms of the ablation begin with, since adapters whose second factor is 0 have half a
gradient. A sample is a prompt with its one response, or with its group of G. Its gradient g_i is its part of the loss of
the one step on all N, times N, so that the mean of all g_i is the gradient of that step, and whatever an advantage is
compared with is that of the whole step; a group that has no gradient counts as 0. One update a rollout, so all on-policy.

With g = mean of g_i, tr = trace of their covariance, and signal = |g|^2 - tr/N, which estimates the squared norm of the
true gradient without bias:

- mean/rms, mean/norm: |g| over the root mean square, and over the mean, of |g_i|. Of noise alone the first is 1/sqrt(N).
- cosine: of the mean gradients of two halves of the samples, in the mean of 200 halvings.
- B = tr / signal: the samples in a step at which noise equals signal, the simple noise scale (McCandlish et al. 2018,
  arXiv:1812.06162), with its standard error by the jackknife; inf where the signal is not above 0. With far fewer samples a
  step, twice the samples save half of the steps; with far more, none. In responses it is B G, in seconds B times what a
  sample takes.
- t: whatever an objective pulls at counts as its signal. So g_i is projected onto the direction in which the reward rises,
  the mean gradient of RLOO over --reference steps on other prompts; t is the mean projection over its standard error. Where
  it is twice as large, a fourth of the samples find that direction as surely. Where RLOO itself has no t above 2, the
  direction is not known well enough to say anything.
- c, r: mean confidence and mean reward; r of responses whose answer is exactly the annotated one, and of the others; and of
  either the share with an advantage above 0.
- LrLc, LrHc, HrLc, HrHc: the mean advantage of responses with low or high reward and low or high confidence, high being at
  or above the mean.

Seconds are those of a step of the same size on other prompts, in the micro-batches of the config, which comes first and
leaves the weights as they are; what an arm remembers from step to step it has from there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from arms import ROOT, config_of, data_of, fit, fresh_prompts, module_of, seeded
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_sal.evaluation.comparison import restore, trainable_state
from lightning_sal.evaluation.response_types import TYPES, classify, mean_by_type, threshold
from lightning_sal.samples import Batch, Phased
from lightning_sal.tasks import get_task

HALVINGS = 200
REWARD = "rloo"  # its gradient is that of the mean reward, without bias


class Singles(L.Callback):
    """In the last step, a gradient for each sample alone, times the number of samples; in those before, the step's own.

    Attributes:
        gradients: (S, D), the rows of S <= N samples; the other N - S have gradient 0.
        before: (D,) mean gradient of the steps before.
        seconds: Wall time of the last of these.
    """

    def __init__(self, batches: int) -> None:
        self.last = batches - 1
        self.rows: list[Tensor] = []
        self.before = torch.zeros(())
        self.seconds = math.nan

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.now = batch_idx == self.last
        if self.now:
            pl_module.micro_batch_size = pl_module.responses_per_prompt
            self.samples = len(batch.groups)

    def on_before_backward(self, trainer: L.Trainer, pl_module: Any, loss: Tensor) -> None:
        if self.now:
            pl_module.zero_grad()

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.now:
            self.rows.append(gradient(pl_module) * self.samples)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        if not self.now:
            self.before = self.before + gradient(pl_module) / self.last

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if not self.now:
            self.seconds = sum(pl_module.record.seconds.values())

    @property
    def gradients(self) -> Tensor:
        return torch.stack(self.rows)


def gradient(module: Any) -> Tensor:
    """(D,) the gradient of all that is trained."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in module.trainable().values()]
    )


def without_steps(module: Any) -> None:
    """Have a module train without moving, on-policy, on all prompts of a batch at once."""
    module.updates_per_rollout = 1
    module.prompts_per_step = None  # of DAPO; others do not look
    module.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)


def products(gradients: Tensor, samples: int) -> Tensor:
    """(N, N) float64 inner products of the gradients of N samples, of which the last have gradient 0."""
    found = torch.zeros(samples, samples, dtype=torch.float64)
    found[: len(gradients), : len(gradients)] = gradients.double() @ gradients.double().T
    return found


def noise(products: Tensor) -> dict[str, float]:
    """What the inner products of N >= 3 gradients say of signal and noise; see the head of this file.

    Args:
        products: (N, N).
    """
    n, squares = len(products), products.diagonal()
    mean, square = products.sum().item() / n**2, squares.mean().item()
    scale, error = noise_scale(products)
    return {
        "norm": math.sqrt(mean),
        "mean/rms": math.sqrt(mean / square) if square else math.nan,
        "noise alone": 1 / math.sqrt(n),
        "mean/norm": math.sqrt(mean) / squares.sqrt().mean().item() if square else math.nan,
        "signal": (products.sum() - squares.sum()).item() / (n * (n - 1)),
        "trace": n / (n - 1) * (square - mean),
        "B": scale,
        "B error": error,
        "cosine": halves(products),
    }


def noise_scale(products: Tensor) -> tuple[float, float]:
    """B and its standard error by the jackknife; (inf, nan) where the signal is not above 0."""

    def scale(n: Tensor, total: Tensor, squares: Tensor) -> Tensor:
        signal, mean = (total - squares) / (n * (n - 1)), total / n**2
        return n / (n - 1) * (squares / n - mean) / signal

    n, total, squares = torch.tensor(float(len(products))), products.sum(), products.diagonal().sum()
    if total <= squares:
        return math.inf, math.nan
    own = products.diagonal()
    each = scale(n - 1, total - 2 * products.sum(1) + own, squares - own)
    return scale(n, total, squares).item(), math.sqrt((n - 1).item() * each.var(correction=0).item())


def halves(products: Tensor, times: int = HALVINGS) -> float:
    """The mean cosine of the mean gradients of two halves, over random halvings that leave either a gradient."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.stack([torch.randperm(len(products), generator=generator) % 2 for _ in range(times)]).double()
    one, other = signs @ products, (1 - signs) @ products  # (times, N)
    across, first, second = ((a * b).sum(1) for a, b in ((one, 1 - signs), (one, signs), (other, 1 - signs)))
    return (across / (first * second).sqrt()).nanmean().item()


def answers(module: Any) -> dict[str, float]:
    """Confidence, reward and the sign of the advantage of the responses of a step, right and wrong ones apart."""
    record = module.record
    right = torch.tensor([bool(get_task(one.group.task).agrees(one.answer, one.group)) for one in record.responses])
    found = {"c": record.confidence.mean(), "r": record.rewards.total.mean(), "right": right.double().mean()}
    for name, rows in {"right": right, "wrong": ~right}.items():
        found[f"r {name}"] = record.rewards.total[rows].mean()
        found[f"A > 0 {name}"] = (record.advantages[rows] > 0).double().mean()
    rewards, confidence = record.rewards.total, record.confidence
    types = classify(rewards, confidence, threshold(rewards), threshold(confidence))
    return {name: value.item() for name, value in found.items()} | mean_by_type(record.advantages, types)


def start_of(config: dict[str, Any], steps: int) -> dict[str, Tensor]:
    """What is trained, after some SFT steps of a config."""
    module = module_of(config)
    if steps:
        stream = iter(data_of(config, streams=["sft"]).train_dataloader())
        fit(module, [Phased("sft", next(stream)) for _ in range(steps)], config["trainer"]["gradient_clip_val"])
    return trainable_state(module)


def toward(direction: Tensor, gradients: Tensor, samples: int) -> float:
    """t of the projections onto a direction (D,) of the gradients of N samples, of which the last have gradient 0."""
    projections = torch.zeros(samples, dtype=torch.float64)
    projections[: len(gradients)] = gradients.double() @ direction.double()
    return (projections.mean() / projections.std() * math.sqrt(samples)).item()


def measured(config: dict[str, Any], batches: list[Batch], start: dict[str, Tensor]) -> tuple[Any, Singles]:
    """The module of an arm after a step on each batch, which left its weights at the start, and the gradients."""
    module, singles = module_of(config), Singles(len(batches))
    restore(module, start)
    without_steps(module)
    fit(module, batches, None, [singles])
    return module, singles


def values(module: Any, singles: Singles, direction: Tensor) -> dict[str, float]:
    """What `measured` found, in numbers.

    Args:
        module: After it.
        singles: Its gradients.
        direction: (D,) in which the reward rises.
    """
    samples, group, seconds = singles.samples, module.responses_per_prompt, singles.seconds / singles.samples
    found = noise(products(singles.gradients, samples))
    costs = {"G": group, "B responses": found["B"] * group, "ms": 1000 * seconds, "B seconds": found["B"] * seconds}
    return {**answers(module), **found, "t": toward(direction, singles.gradients, samples), **costs, "samples": samples}


RESPONSES = {
    "G": ".0f", "c": ".3f", "r": ".3f", "r right": ".3f", "r wrong": ".3f", "A > 0 right": ".0%", "A > 0 wrong": ".0%",
    **dict.fromkeys(TYPES, "+.3f"),
}  # fmt: skip
GRADIENTS = {
    "G": ".0f", "mean/rms": ".3f", "mean/norm": ".3f", "cosine": ".3f", "t": ".1f", "B": ".0f", "B error": ".0f",
    "B responses": ".0f", "ms": ".1f", "B seconds": ".1f",
}  # fmt: skip


def table(found: Mapping[str, Mapping[str, float]], columns: Mapping[str, str], title: str) -> Table:
    """A row an arm.

    Args:
        found: Arm -> its numbers.
        columns: Those that are shown, and their formats.
        title: Above it.
    """
    grid = Table(title=title)
    grid.add_column("")
    for name in columns:
        grid.add_column(name, justify="right")
    for arm, values in found.items():
        grid.add_row(arm, *(format(values[name], digits) for name, digits in columns.items()))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in (ROOT / "conf/rl").glob("*.yaml"))
    parser.add_argument("--arms", nargs="+", default=names, choices=names, metavar="NAME", help="files of conf/rl")
    parser.add_argument("--prompts", type=int, default=256, help="N, the samples of a step, >= 3")
    parser.add_argument("--reference", type=int, default=4, help="steps that tell where the reward rises, >= 1")
    parser.add_argument("--warmup", type=int, default=20, help="SFT steps before, the same weights for all arms")
    parser.add_argument("--model", help="the embedded policy to begin with; by default that of conf/ablation/fit.yaml")
    parser.add_argument("--wording", help="how the scenes are spoken of")
    parser.add_argument("--seed", type=int, default=0, help="of adapters, prompts and sampling")
    parser.add_argument("--json", type=Path, metavar="FILE", help="to write the numbers to, an arm a line")
    given = parser.parse_args()
    if given.json and given.json.exists():
        parser.error(f"{given.json} is there already, and is not overwritten")
    options = seeded(given.seed)
    options += [f"--model.init_args.policy.model={given.model}"] if given.model else []
    options += [f"--data.init_args.wording={given.wording}"] if given.wording else []
    configs = {arm: config_of(arm, *options) for arm in given.arms}
    first = configs[given.arms[0]]
    start, batches = start_of(first, given.warmup), fresh_prompts(first, given.prompts, given.reference + 1)
    reference = measured(config_of(REWARD, *options), batches, start)
    found = {}
    for arm, config in configs.items():
        found[arm] = values(
            *(reference if arm == REWARD else measured(config, batches[-2:], start)), reference[1].before
        )
        print(f"{arm}: {', '.join(f'{name} {value:.4g}' for name, value in found[arm].items())}", flush=True)
        if given.json:
            with given.json.open("a") as file:
                numbers = {name: value if math.isfinite(value) else None for name, value in found[arm].items()}
                file.write(json.dumps({"arm": arm, **numbers}) + "\n")
    console, title = Console(width=150), f"{given.prompts} prompts after {given.warmup} SFT steps, seed {given.seed}"
    console.print(table(found, RESPONSES, title))
    console.print(table(found, GRADIENTS, f"{title}; noise alone has mean/rms {given.prompts**-0.5:.3f}"))


if __name__ == "__main__":
    main()
