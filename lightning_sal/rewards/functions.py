"""A plain function of a response as a term of the reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.terms import RewardTerm, Scores

RewardFunction = Callable[[Response], float | None]


class FunctionTerm(RewardTerm):
    """A function as a term, under the function's name: it gives each response a value in [0, 1].

    YAML names the function where a term may stand, as `mypkg.rewards.brevity`. None as its value says that there is none,
    which is counted and never taken for 0. A function that reads masks or maps says so by an attribute:
    `brevity.needs = frozenset({"masks"})`. Settings, reasons, other bounds, or a memory need a subclass of `RewardTerm`.

    Args:
        function: Called with one response at a time; it has a name.

    Raises:
        ValueError: If it has none, as what `functools.partial` gives.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, function: RewardFunction) -> None:
        super().__init__()
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise ValueError(f"the reward {function!r} has no name: write it as `def NAME(response)`")
        self.name, self.function = name, function
        self.needs = frozenset(getattr(function, "needs", ()))  # type: ignore[misc]  of this function, not of the class

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1].

        Raises:
            ValueError: If the function gives what is no number.
        """
        given = [self.function(response) for response in responses]
        known = torch.tensor([value is not None for value in given])
        return Scores(
            torch.tensor([0.0 if value is None else self._number(value) for value in given]),
            tuple(f"{self.name} gave no value" if value is None else None for value in given),
            known=None if known.all() else known,
        )

    def _number(self, value: float) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"the reward {self.name} gave {value!r}: a number in [0, 1], or None, is needed") from None


def as_term(term: RewardTerm | RewardFunction) -> RewardTerm:
    """A term as it is, and a function as the term that it makes."""
    return term if isinstance(term, RewardTerm) else FunctionTerm(term)
