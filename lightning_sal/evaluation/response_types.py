"""The four types of sampled responses, by reward and confidence, and what each algorithm makes of them.

HrLc, a high reward in spite of low confidence, is what CGPO is made to learn from, and LrHc, a low reward in spite of
high confidence, what it is made to unlearn; in HrHc and LrLc the two agree. Every response is of one type here, while
the types of `ConfidenceCalibration` are the outer 20 % alone.

Legend: B responses, G of them to one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_sal.objectives import (
    Moments,
    batch_leave_one_out_advantages,
    calibrated,
    centred,
    cgpo_advantages,
    fit_sums,
    group_advantages,
    leave_one_out_advantages,
    moments,
    scaled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TYPES = ("LrLc", "LrHc", "HrLc", "HrHc")
TYPE_COLOURS = ("#8a8f99", "#d55e00", "#009e73", "#0072b2")


def threshold(values: Tensor, given: float | None = None) -> float:
    """Where high begins: the number that is given, or else the mean of the values.

    Rewards pile up at a few values, and a median that falls on the lowest of them would call every response high. The
    mean leaves responses on both sides wherever any two differ.

    Args:
        values: (B,) rewards or confidences, B >= 1.
        given: A number, or None.
    """
    if given is not None:
        return given
    return min(values.double().mean().item(), values.max().item())  # equal values have no mean above them by rounding


def classify(rewards: Tensor, confidence: Tensor, reward_threshold: float, confidence_threshold: float) -> Tensor:
    """The type of each response: high is what reaches its threshold, low what lies below.

    Args:
        rewards: (B,) rewards.
        confidence: (B,) in [0, 1].
        reward_threshold: Where a high reward begins.
        confidence_threshold: Where high confidence begins.

    Returns:
        (B,) int64, places in `TYPES`.

    Raises:
        ValueError: If shapes differ, or a value is not finite.
    """
    if rewards.shape != confidence.shape or rewards.ndim != 1:
        raise ValueError(
            f"rewards {tuple(rewards.shape)} and confidence {tuple(confidence.shape)} must both have the shape (B,)"
        )
    for name, values in {"reward": rewards, "confidence": confidence}.items():
        if not values.isfinite().all():
            index = int(values.isfinite().int().argmin())
            raise ValueError(f"{name}[{index}] is {values[index].item()}; it must be finite")
    # In float32, so that a reward of 0.9 reaches a threshold of 0.9 whatever it was read from.
    high_reward, high_confidence = rewards.float() >= reward_threshold, confidence.float() >= confidence_threshold
    return 2 * high_reward.long() + high_confidence.long()


def shares(types: Tensor) -> dict[str, float]:
    """Type -> its share of the responses, in [0, 1], from their (B,) places in `TYPES`."""
    counts = torch.bincount(types, minlength=len(TYPES)).tolist()
    return {name: count / len(types) for name, count in zip(TYPES, counts, strict=True)}


def mean_by_type(values: Tensor, types: Tensor) -> dict[str, float]:
    """Type -> mean of the (B,) values of its responses, without NaN; NaN where that leaves none."""
    return {name: values[types == place].nanmean().item() for place, name in enumerate(TYPES)}


def advantages_by_algorithm(
    rewards: Tensor,
    confidence: Tensor,
    prompts: Sequence[Hashable],
    steps: Sequence[Hashable],
    confidences: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The advantage that each algorithm would give the same responses.

    CGPO and its variants, BatchLOO, GRPO, Dr.GRPO and RLOO, as `lightning_sal.objectives` has them; DAPO and GSPO take that
    of GRPO. The line of calibrated CGPO is fitted to these responses themselves.

    Args:
        rewards: (B,) rewards.
        confidence: (B,) in [0, 1].
        prompts: What tells the prompt of each response, and the step at which it was sampled, from others.
        steps: What tells its step from others.
        confidences: Name -> (B,) the confidence in the same responses as a variant of CGPO takes it, NaN where unknown.

    Returns:
        Algorithm -> (B,) advantages. Those of GRPO, Dr.GRPO and RLOO compare the G responses to a prompt, and are NaN where
        G = 1.
    """
    cgpo = cgpo_advantages(rewards, confidence)
    advantages = {
        "CGPO": cgpo,
        "CGPO centred": _by_step(centred, cgpo, steps),
        "CGPO scaled": _by_step(scaled, cgpo, steps),
        "CGPO calibrated": cgpo_advantages(rewards, calibrated(confidence, fit_sums(confidence, rewards))),
    }
    advantages |= {f"CGPO {name}": cgpo_advantages(rewards, values) for name, values in (confidences or {}).items()}
    advantages["BatchLOO"] = _by_step(batch_leave_one_out_advantages, rewards, steps)
    return advantages | _by_prompt(rewards, prompts)


def _by_step(advantage: Callable[[Tensor, Moments], Tensor], values: Tensor, steps: Sequence[Hashable]) -> Tensor:
    """What is computed from the values of each step."""
    found = torch.empty_like(values)
    for rows in _rows(steps):
        found[rows] = advantage(values[rows], moments(values[rows]))
    return found


def _by_prompt(rewards: Tensor, prompts: Sequence[Hashable]) -> dict[str, Tensor]:
    """What is computed from the rewards of each prompt."""
    alone = torch.full_like(rewards, torch.nan)
    grpo, dr_grpo, rloo = alone.clone(), alone.clone(), alone.clone()
    grouped: dict[int, list[int]] = {}  # G -> rows of all prompts that have G, those of a prompt side by side
    for own in _rows(prompts):
        grouped.setdefault(len(own), []).extend(own)
    for size, own in grouped.items():
        if size > 1:
            grpo[own] = group_advantages(rewards[own], size)
            dr_grpo[own] = group_advantages(rewards[own], size, "none")
            rloo[own] = leave_one_out_advantages(rewards[own], size)
    return {"GRPO": grpo, "Dr.GRPO": dr_grpo, "RLOO": rloo}


def _rows(keys: Sequence[Hashable]) -> list[list[int]]:
    """The rows that each key has, in the order in which the keys come first."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return list(rows.values())


def figure(
    rewards: Tensor,
    confidence: Tensor,
    advantages: Mapping[str, Tensor],
    reward_threshold: float,
    confidence_threshold: float,
) -> Figure:
    """Reward against confidence with the share of each type, and below it the mean advantages by type.

    Args:
        rewards: (B,) rewards, B >= 1.
        confidence: (B,) in [0, 1].
        advantages: Algorithm -> (B,) advantages, one or more; one that is NaN throughout is left out.
        reward_threshold: Where a high reward begins.
        confidence_threshold: Where high confidence begins.

    Raises:
        ValueError: As for `classify`, or where matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure  # not by pyplot, which would keep every figure of a training

    types = classify(rewards, confidence, reward_threshold, confidence_threshold)
    shown = {name: values for name, values in advantages.items() if not values.isnan().all()}
    heights = 4.2, 0.8 + 0.32 * len(shown)
    whole = Figure(figsize=(5.6, sum(heights)), layout="constrained")  # upright, for TensorBoard's narrow columns
    upper, lower = whole.subplots(2, 1, height_ratios=heights)
    _scatter(upper, rewards, confidence, types)
    upper.set(xlabel="confidence", xlim=_limits(confidence, confidence_threshold))
    upper.set(ylabel="reward", ylim=_limits(rewards, reward_threshold))
    upper.axvline(confidence_threshold, color="#707886", linewidth=1, linestyle="--")
    upper.axhline(reward_threshold, color="#707886", linewidth=1, linestyle="--")
    upper.set_title(heading(len(types), reward_threshold, confidence_threshold), fontsize=10)
    _means(lower, shown, types)
    return whole


def heading(number: int, reward_threshold: float, confidence_threshold: float) -> str:
    """What a figure or a table is of: how many responses, and where high begins."""
    return f"{number:,} responses; high: reward ≥ {reward_threshold:.3g}, confidence ≥ {confidence_threshold:.3g}"


def require_matplotlib() -> None:
    """Refuse work that would end in a figure where none can be drawn.

    Raises:
        ValueError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("response types are drawn by matplotlib, which is not installed: pip install matplotlib")


def _scatter(axes: Axes, rewards: Tensor, confidence: Tensor, types: Tensor) -> None:
    alpha = max(0.05, min(0.7, 300 / len(types)))  # many points lie on each other
    for place, (name, share) in enumerate(shares(types).items()):
        own = types == place
        x, y = confidence[own].float().cpu().numpy(), rewards[own].float().cpu().numpy()
        axes.scatter(x, y, s=14, color=TYPE_COLOURS[place], alpha=alpha, linewidths=0, rasterized=True)
        side, end = ("right", 0.98) if name.endswith("Hc") else ("left", 0.02)
        edge, height = ("top", 0.98) if name.startswith("Hr") else ("bottom", 0.02)
        words = f"{name} {100 * share:.1f} %"
        style = {"color": TYPE_COLOURS[place], "weight": "bold", "transform": axes.transAxes}
        axes.text(end, height, words, ha=side, va=edge, **style)


def _limits(values: Tensor, threshold: float) -> tuple[float, float]:
    """From where to where an axis goes: all values and the threshold, and room for words in the corners."""
    low, high = min(values.min().item(), threshold), max(values.max().item(), threshold)
    room = 0.15 * max(high - low, 0.02)
    return low - room, high + room


def _means(axes: Axes, advantages: Mapping[str, Tensor], types: Tensor) -> None:
    """A row an algorithm, a column a type; each row has a colour scale of its own, since their units differ."""
    means = torch.tensor([list(mean_by_type(values, types).values()) for values in advantages.values()])
    largest = means.abs().nan_to_num().amax(1, keepdim=True)
    colours = means / largest.clamp(min=1e-12)
    axes.imshow(colours.numpy(), cmap="RdBu", vmin=-1.6, vmax=1.6, aspect="auto")  # no colour too dark to write on
    for row, column in torch.cartesian_prod(*map(torch.arange, means.shape)).tolist():
        if not math.isnan(mean := means[row, column].item()):
            axes.text(column, row, f"{mean:+.3f}", ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(TYPES)), TYPES)
    axes.set_yticks(range(len(advantages)), list(advantages))
    axes.tick_params(length=0)
    axes.set_title("mean advantage by type; colours within a row", fontsize=10)
