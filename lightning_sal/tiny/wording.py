"""How the reasoning about a scene is worded: always in the same words, or in words drawn for each response.

In the same words nearly every token of a response is certain, whatever it says of the scene. In drawn words about a third
are not, as in free text: their mean probability lies near .8, between what wrong and right answers are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_sal.tiny.scenes import Draw

Named = Sequence[Sequence[str]]  # the names of the salient objects of each image, from left to right
_OPENINGS = ("Scene:", "I see", "There is", "Here is", "In view:")
_JOINS = ("and", "with", "beside", "near")
_CLAUSES = ("", "", "in front", "at once")
_STRONG = ("vivid", "bright", "strong", "bold")
_TINTS = ("colour", "paint", "tone")
_FAINT = ("pale", "faint", "dull", "weak")
_OTHERS = ("shapes", "forms", "figures")
_SO = ("Conclusion:", "So", "Thus", "In all")
_EACH = ("each has a", "all show a", "common is the", "shared is the")
_ONE = ("one category.", "one kind.", "the same thing.", "one class.")


def plain(task: str, named: Named, expressions: Sequence[str], draw: Draw) -> str:
    """Scene, analysis and conclusion in the same words each time."""
    if task == "cosod":
        objects = "; ".join(" and ".join(names) for names in named)
        return f"Objects: {objects}. Analysis: each has a {expressions[0].split()[-1]}. Conclusion: one category."
    salient = " and ".join(named[0])
    return f"Scene: {salient}. Analysis: vivid colour against pale shapes. Conclusion: {_count(task, expressions)}."


def varied(task: str, named: Named, expressions: Sequence[str], draw: Draw) -> str:
    """The same content, with each word that may differ drawn, the order of objects too, and a clause that may be there."""

    def listed(names: Sequence[str]) -> str:
        first, *others = draw.shuffled(names)
        return " ".join([first, *(f"{draw.choice(_JOINS)} {name}" for name in others)])

    objects = "; ".join(listed(names) for names in named)
    opening = " ".join(filter(None, (draw.choice(_OPENINGS), objects, draw.choice(_CLAUSES))))
    if task == "cosod":
        shape = expressions[0].split()[-1]
        return f"{opening}. {draw.choice(_EACH).capitalize()} {shape}. {draw.choice(_SO)} {draw.choice(_ONE)}"
    strong, tint, faint, others = map(draw.choice, (_STRONG, _TINTS, _FAINT, _OTHERS))
    reason = f"{strong.capitalize()} {tint} against {faint} {others}."
    return f"{opening}. {reason} {draw.choice(_SO)} {_count(task, expressions)}."


def _count(task: str, expressions: Sequence[str]) -> str:
    noun = "region" if task == "sod" else "instance"
    return f"{len(expressions)} {noun}{'s' if len(expressions) > 1 else ''}"


WORDINGS: dict[str, Callable[[str, Named, Sequence[str], Draw], str]] = {"plain": plain, "varied": varied}
"""Name -> what words the reasoning of a task about named objects, before it answers with expressions."""
