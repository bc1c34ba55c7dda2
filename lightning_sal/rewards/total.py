"""The reward: the weighted sum of its terms."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.functions import RewardFunction, as_term
from lightning_sal.rewards.terms import Correctness, Format, RewardTerm, Scores
from lightning_sal.transfer import read

ROUNDING = 1e-6  # by which a value in half precision or a mean may leave its bounds


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """What B responses are worth, and why.

    Names are those of `Reward.names`: of its terms, and of what is measured beside them.

    Args:
        total: (B,) float32 on the CPU, the weighted sum of what enters it.
        terms: Name -> its (B,) float32 values on the CPU, before weighting.
        reasons: Name -> its B reasons (one line or None).
        observed: Name -> (B, ...) what will be remembered of these responses, once they have been learnt from.
        known: Name of what may have no value -> (B,) bool, False where it had none.
    """

    total: Tensor
    terms: dict[str, Tensor]
    reasons: dict[str, tuple[str | None, ...]]
    observed: dict[str, Tensor]
    known: dict[str, Tensor] = field(default_factory=dict)

    def of(self, row: int) -> dict[str, float]:
        """The values that a response has, by term, before weighting."""
        has = [name for name in self.terms if name not in self.known or self.known[name][row]]
        return {name: self.terms[name][row].item() for name in has}


def join_rewards(parts: Sequence[RewardBatch]) -> RewardBatch:
    """What the responses of several batches are worth, as one batch; all have the same terms."""
    return RewardBatch(
        total=torch.cat([part.total for part in parts]),
        terms={name: torch.cat([part.terms[name] for part in parts]) for name in parts[0].terms},
        reasons={name: tuple(r for part in parts for r in part.reasons[name]) for name in parts[0].reasons},
        observed={name: torch.cat([part.observed[name] for part in parts]) for name in parts[0].observed},
        known={name: torch.cat([part.known[name] for part in parts]) for name in parts[0].known},
    )


def weighted_sum(
    terms: Mapping[str, Tensor], known: Mapping[str, Tensor], weights: Mapping[str, float], prompts: Sequence[Hashable]
) -> Tensor:
    """Sum over terms of weight x value, where some values are unknown: see `Reward`.

    Args:
        terms: Name of a term -> its (B,) values.
        known: Name of a term with unknown values -> (B,) bool.
        weights: Name of a term -> its weight.
        prompts: Which prompt each of the B responses answers.

    Returns:
        (B,) float32.
    """
    count = len(prompts)
    total, counted = torch.zeros(count), torch.zeros(count)
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    places = torch.tensor([numbers[prompt] for prompt in prompts], dtype=torch.int64)

    def summed(values: Tensor) -> Tensor:
        """(B,) sums over the responses to the same prompt."""
        return values.new_zeros(len(numbers)).index_add(0, places, values)[places]

    for name, values in terms.items():
        mine = known.get(name, torch.ones(count, dtype=torch.bool)).float()
        beside = summed(mine)  # how many responses to the same prompt have a value
        if not mine.all():
            values = torch.where(mine.bool(), values, summed(values * mine) / beside.clamp(min=1))
        total += weights[name] * values * (beside > 0)
        counted += abs(weights[name]) * (beside > 0)
    whole = sum(map(abs, weights.values()))
    return total if bool((counted == whole).all()) else total * (whole / counted.where(counted > 0, 1.0))


def _read(scores: Mapping[str, Scores]) -> dict[str, Tensor]:
    """The values of each as float32 on the CPU."""
    return dict(zip(scores, read(*(score.values.float() for score in scores.values())), strict=True))


class Reward(nn.Module):
    """r = sum over terms of weight x value; by default r = 0.5 correctness + 0.5 format.

    A term of weight 0 is measured and logged, and rewards nothing. Where a term has no value for a response, the mean of
    its values for the other responses to the same prompt stands in, which favours none of them; where it has none for any
    of these, the other terms get its weight.

    Args:
        terms: The criteria; a function of a response is one too (`FunctionTerm`). Null takes correctness and format.
        weights: Name of a term -> its weight, for every term; null gives all the same weight, 1 in sum.
    """

    def __init__(
        self, terms: list[RewardTerm | RewardFunction] | None = None, weights: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        built: list[RewardTerm] = [Correctness(), Format()] if terms is None else [as_term(term) for term in terms]
        names = [term.name for term in built]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"reward terms must be one or more, each with a name of its own, not {names}")
        self.terms = nn.ModuleDict({term.name: term for term in built})
        self.weights = dict.fromkeys(names, 1 / len(names)) if weights is None else dict(weights)
        if set(self.weights) != set(names) or not all(map(math.isfinite, self.weights.values())):
            raise ValueError(f"reward weights {self.weights} must give each of {names} a finite number, and no other")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all that a `RewardBatch` of it holds values of: the terms, and what is measured beside them."""
        return tuple(self.terms)

    def enters(self, term: str) -> str:
        """The name of what a term enters the total by: its own, for its value."""
        return term

    def bounds_of(self, term: str) -> tuple[float, float]:
        """The least and the largest number that a term enters the total by, before weighting."""
        return self._terms[term].bounds

    def beside(self, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        """What is measured beside the terms, by name, from what the terms gave."""
        return {}

    @property
    def needs(self) -> frozenset[str]:
        """What its terms need of a response beside the answer."""
        return frozenset().union(*(term.needs for term in self._terms.values()))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest total, by the bounds of what enters it."""
        weighted = [(self.weights[name], self.bounds_of(name)) for name in self._terms]
        ends = [sorted(weight * end if weight else 0.0 for end in bounds) for weight, bounds in weighted]
        low, high = (math.fsum(side) for side in zip(*ends, strict=True))
        return low, high

    def require_probability(self, who: str) -> None:
        """Check that no total can leave [0, 1].

        Args:
            who: Needs it, for the error.

        Raises:
            ValueError: One can; the line names the first term without bounds, or the bounds of the total.
        """
        low, high = self.bounds
        unbounded = [name for name in self._terms if not all(map(math.isfinite, self.bounds_of(name)))]
        if unbounded:
            raise ValueError(
                f"{who} compares rewards with a confidence in [0, 1], and the reward term '{unbounded[0]}' states no "
                "bounds: set `bounds = (0.0, 1.0)` in its class"
            )
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise ValueError(
                f"{who} compares rewards with a confidence in [0, 1], and with the weights {self.weights} a total lies in "
                f"[{low:g}, {high:g}]: give weights that keep it within [0, 1]"
            )

    def forward(self, responses: Sequence[Response]) -> RewardBatch:
        """Score B responses.

        Args:
            responses: With what `needs` names.

        Raises:
            ValueError: If a term gives a value that is not finite or outside of its bounds.
        """
        scores: dict[str, Scores] = {name: term(responses) for name, term in self._terms.items()}
        terms = _read(scores)
        for name, values in terms.items():
            self._check(name, values.tolist(), responses)
        beside = self.beside(scores)
        scores, terms = scores | beside, terms | _read(beside)
        observed = {name: score.values if score.observed is None else score.observed for name, score in scores.items()}
        known = {name: score.known.cpu() for name, score in scores.items() if score.known is not None}
        entering = {name: self.enters(name) for name in self._terms}
        total = weighted_sum(
            {name: terms[by] for name, by in entering.items()},
            {name: known[by] for name, by in entering.items() if by in known},
            self.weights,
            [id(response.group) for response in responses],
        )
        low, high = torch.tensor(self.bounds)  # what float32 cannot hold is infinite
        return RewardBatch(
            total=total.clamp(low, high),  # what rounding may have added
            terms=terms,
            reasons={name: score.reasons for name, score in scores.items()},
            observed={name: values.detach() for name, values in observed.items()},
            known=known,
        )

    def commit(self, observed: Mapping[str, Tensor]) -> None:
        """Let terms remember what an update was made from.

        Args:
            observed: For names in `remembers` what `RewardTerm.commit` gets.
        """
        for name, values in observed.items():
            self._terms[name].commit(values)

    @property
    def remembers(self) -> tuple[str, ...]:
        """The names of the terms, and of what is measured beside them, of which anything is remembered."""
        return tuple(name for name, term in self._terms.items() if type(term).commit is not RewardTerm.commit)

    def refuse_other_state(self, saved: Mapping[str, Tensor]) -> None:
        """Check that what a checkpoint remembers is of a reward like this one; called before it is put in place.

        Args:
            saved: Name of a buffer of the reward -> what the checkpoint holds.

        Raises:
            ValueError: If it is of another.
        """

    @property
    def _terms(self) -> dict[str, RewardTerm]:
        return dict(self.terms.items())  # type: ignore[arg-type]  ModuleDict's own type is Module

    def _check(self, name: str, values: list[float], responses: Sequence[Response]) -> None:
        low, high = self._terms[name].bounds
        for response, value in zip(responses, values, strict=True):
            if not math.isfinite(value):
                raise ValueError(f"{response.group.key}: reward term '{name}' gave {value}; it must be finite")
            if not low - ROUNDING <= value <= high + ROUNDING:
                raise ValueError(
                    f"{response.group.key}: reward term '{name}' gave {value}, outside of its bounds [{low:g}, {high:g}]"
                )
