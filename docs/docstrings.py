"""An extension of griffe: formulas of docstrings become MathML, which browsers draw by themselves, and examples code."""

from __future__ import annotations

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

FORMULA = re.compile(r"^( *)\.\. math:: (.+(?:\n\1 +\S.*)*)", re.MULTILINE)
SYMBOL = re.compile(r":math:`([^`]+)`")
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class ReadableDocstrings(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)


def readable(docstring: str) -> str:
    """A docstring as Markdown and the google style have it, from the forms of reStructuredText in it."""
    text = FORMULA.sub(lambda found: found[1] + convert(" ".join(found[2].split()), display="block"), docstring)
    return EXAMPLE.sub("Examples:", SYMBOL.sub(lambda found: convert(found[1]), text))
