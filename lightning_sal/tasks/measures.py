"""What an evaluation reports: the heading of a number, its direction, and what it is good for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that an evaluation reports, whatever its value.

    Args:
        heading: Of its column in a table.
        lower_is_better: Whether less of it is better.
        reported: Whether papers report it: the columns of a table that asks for none.
        primary: Whether it is the one by which failures are ranked.
        per_image: Whether it is a mean over images (or samples), so that these can be resampled.
        overlap: Whether it tells how far predictions and ground truth overlap, for the chart of it.
        extra: Whether it is measured only where it is asked for, since it takes a while or few papers report it.
    """

    heading: str
    lower_is_better: bool = False
    reported: bool = False
    primary: bool = False
    per_image: bool = False
    overlap: bool = False
    extra: bool = False


_OF_A_TASK = ("primary", "reported")  # what two tasks may see otherwise in one measure

# Of every task: what is logged of its responses.
RESPONSES = {
    "reward": Measure("reward", per_image=True),
    "confidence": Measure("confidence", per_image=True),
    "malformed": Measure("malformed", lower_is_better=True),
    "exact": Measure("exact"),
    "ece": Measure("ECE", lower_is_better=True),
    "high_reward_high_confidence": Measure("high reward, high confidence"),
    "high_reward_low_confidence": Measure("high reward, low confidence"),
    "low_reward_high_confidence": Measure("low reward, high confidence", lower_is_better=True),
    "low_reward_low_confidence": Measure("low reward, low confidence"),
}


def term_measure(term: str) -> str:
    """The measure that is the mean of a term of the reward."""
    return f"reward_{term}"


def primary(measures: Mapping[str, Measure]) -> str:
    """The name of the primary one.

    Raises:
        ValueError: If there is not exactly one.
    """
    found = [name for name, measure in measures.items() if measure.primary]
    if len(found) != 1:
        raise ValueError(f"measures {', '.join(measures)}: exactly one is primary, not {len(found)}")
    return found[0]


def joined(parts: Iterable[Mapping[str, Measure]]) -> dict[str, Measure]:
    """The measures of several tasks by name, in the order in which they first come.

    One that is primary or reported in any of them is so in the whole.

    Raises:
        ValueError: If two tasks mean different things by one name.
    """
    whole: dict[str, Measure] = {}
    for measures in parts:
        for name, measure in measures.items():
            flags = {flag: getattr(measure, flag) or getattr(whole.get(name), flag, False) for flag in _OF_A_TASK}
            measure = replace(measure, **flags)
            if replace(whole.setdefault(name, measure), **flags) != measure:
                raise ValueError(f"two tasks mean different things by the measure {name!r}: rename one")
            whole[name] = measure
    return whole
