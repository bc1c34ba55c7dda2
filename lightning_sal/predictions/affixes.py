"""Names that differ by one text at their end or their beginning, as `cat.png` and `cat_sal.png` do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Affix:
    """What names have more than others.

    Args:
        text: It.
        at_end: Whether it stands at their end, and not at their beginning.
    """

    text: str
    at_end: bool

    def __str__(self) -> str:
        return f"{self.text!r} at the {'end' if self.at_end else 'beginning'}"

    def off(self, name: str) -> str | None:
        """A name without it; None where it is not there. A name in a group, as in `group/name`, keeps its group."""
        group, slash, base = name.rpartition("/")
        rest = base.removesuffix(self.text) if self.at_end else base.removeprefix(self.text)
        return f"{group}{slash}{rest}" if rest != base and rest and not self._parts_a_number(rest) else None

    def _parts_a_number(self, rest: str) -> bool:
        """Whether a number would be cut in two: 12 is not 1 with a 2 behind it."""
        sides = (rest[-1], self.text[0]) if self.at_end else (self.text[-1], rest[0])
        return all(side.isdigit() for side in sides)


def common_affix(longer: Collection[str], shorter: Collection[str]) -> Affix | None:
    """The one text without which each of some names is one of others; None where there is none, or more than one.

    Args:
        longer: Names that may have it.
        shorter: Names that have it not.
    """
    first = next(iter(longer), "").rpartition("/")[2]
    shorter = set(shorter)
    tried = [Affix(first[cut:], True) for cut in range(1, len(first))]
    tried += [Affix(first[:cut], False) for cut in range(1, len(first))]
    fitting = [affix for affix in tried if all(affix.off(name) in shorter for name in longer)]
    return fitting[0] if len(fitting) == 1 else None
