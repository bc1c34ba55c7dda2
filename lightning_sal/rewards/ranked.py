"""A reward whose terms count by where their values stand among those of the past."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_sal.rewards.functions import RewardFunction
from lightning_sal.rewards.ranks import RankQueue
from lightning_sal.rewards.terms import RewardTerm, Scores
from lightning_sal.rewards.total import Reward
from lightning_sal.transfer import read


class RankedReward(Reward):
    """r = sum over terms of weight x rank, for the terms that are `ranked`, and weight x value for the others.

    The rank of a value is the share of the term's own past values that are at most as large (see `RankQueue`), so that
    terms of unlike scale and difficulty weigh the same, and a gain counts where most responses lie. A term's past are the
    last `capacity` values that updates were made from, on all ranks of the run, in a queue of its own. A step is ranked
    against the steps before it; its own values join them after its last update. Validation, comparisons before and after
    a run, and what dynamic sampling drops move nothing; but where it drops all there is, all of it is remembered, since
    ranks that begin by being all equal would never tell anything apart.

    Values are measured and logged as ever, under the name of their term, and ranks as `<term>_rank`. An unknown value is
    neither ranked nor remembered. A rank lies in [0, 1], whatever the bounds of its term.

    In the first step every value that is not negative has rank 1, as it is compared with zeros alone: where responses to
    a prompt are compared with each other, ranked terms give that step no signal.

    Dr. Seg ranks box IoU, count and points by queues of 2,048 values, which are 16 of its steps, the first 128 of them
    zeros, to one decimal: the defaults.

    Args:
        terms: As for `Reward`.
        weights: Name of a term -> its weight, for every term, as it enters the total: by rank or by value; null gives all
            the same weight, 1 in sum.
        ranked: Names of the terms that enter by rank; null takes all.
        capacity: Values of a term that ranks are taken among, >= `zeros`: steps to remember x prompts of a step on all
            ranks x responses to a prompt.
        zeros: How many zeros stand in for the past at the start, >= 1.
        digits: Decimals of a rank, >= 0, as Python's `round` has them; null for none to be cut.

    Raises:
        ValueError: If a name in `ranked` is none of a term, or the queue cannot be.
    """

    def __init__(
        self,
        terms: list[RewardTerm | RewardFunction] | None = None,
        weights: dict[str, float] | None = None,
        ranked: list[str] | None = None,
        capacity: int = 2048,
        zeros: int = 128,
        digits: int | None = 1,
    ) -> None:
        super().__init__(terms, weights)
        names = list(self.terms)
        ranked = names if ranked is None else ranked
        if not ranked or len(set(ranked)) != len(ranked) or not set(ranked) <= set(names):
            raise ValueError(f"ranked {ranked} must name one or more of the reward terms {names}, each once")
        if taken := [_rank_of(name) for name in ranked if _rank_of(name) in names]:
            raise ValueError(f"the reward term '{taken[0]}' has the name of a rank: give it another")
        queues = {name: RankQueue(capacity, zeros, 1, digits=digits) for name in ranked}
        self.queues = nn.ModuleDict(queues)

    def queue(self, term: str) -> RankQueue:
        """The past values of a ranked term, in one dimension."""
        return self._queues[term]

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, *map(_rank_of, self.queues))

    def enters(self, term: str) -> str:
        return _rank_of(term) if term in self.queues else term

    def bounds_of(self, term: str) -> tuple[float, float]:
        return (0.0, 1.0) if term in self.queues else super().bounds_of(term)

    def beside(self, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        return {_rank_of(name): _ranked(queue, scores[name]) for name, queue in self._queues.items()}

    @property
    def remembers(self) -> tuple[str, ...]:
        return (*super().remembers, *map(_rank_of, self.queues))

    def commit(self, observed: Mapping[str, Tensor]) -> None:
        own = {_rank_of(name): queue for name, queue in self._queues.items()}
        super().commit({name: values for name, values in observed.items() if name not in own})
        for name, queue in own.items():
            if name in observed:
                queue.enqueue(observed[name][observed[name].isfinite()][:, None])
                queue.flush()

    def refuse_other_state(self, saved: Mapping[str, Tensor]) -> None:
        there = {name.split(".")[1] for name in saved if name.startswith("queues.")}
        if there and there != set(self.queues):
            raise ValueError(
                f"the checkpoint remembers values of {', '.join(sorted(there))}, and here {', '.join(sorted(self.queues))} "
                "are ranked: give the same `ranked` terms to model.reward, or start a new run"
            )

    @property
    def _queues(self) -> dict[str, RankQueue]:
        return dict(self.queues.items())  # type: ignore[arg-type]  ModuleDict's own type is Module


def _rank_of(term: str) -> str:
    return f"{term}_rank"


def _ranked(queue: RankQueue, scores: Scores) -> Scores:
    """The ranks of B values, with reasons; what is remembered of an unknown one is not a number."""
    measured = scores.values.detach().double()
    has = torch.ones_like(measured, dtype=torch.bool) if scores.known is None else scores.known
    ranks, length, values, known = read(queue.ranks(measured[:, None])[:, 0], queue.length, measured, has)
    ranks = ranks * known
    reasons = tuple(
        f"{rank:g} of {int(length)} past values are at most {value:.4g}" if is_known else None
        for rank, value, is_known in zip(ranks.tolist(), values.tolist(), known.tolist(), strict=True)
    )
    observed = measured.where(has.to(measured.device, non_blocking=True), torch.nan)
    return Scores(ranks, reasons, observed, None if scores.known is None else known)
