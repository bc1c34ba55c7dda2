"""Whether an answer in free words is the right one, by rules alone: words, numbers, and the options of a multiple choice.

Texts are compared without case, punctuation, articles and differences of white space; numbers by value. It never raises, and
takes time linear in the length of the texts.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping

LONGEST = 40  # characters of a number
ROUNDING = 1e-9  # relative, of numbers that are written differently
ARTICLES = frozenset({"a", "an", "the"})
COUNTED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBERS = {word: str(number) for number, word in enumerate(COUNTED)}
_NUMBER = re.compile(r"[-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+|(?=\.[0-9]))(?:\.[0-9]+)?(?:e[-+]?[0-9]{1,3})?")
_POINT = re.compile(r"(?<=[0-9])[.,](?=[0-9])")  # of a number, which is no punctuation
_SAID = re.compile(
    r"(?:the |my )?(?:(?:final|correct|right) )?(?:answer|option|choice)(?: is)?(?: (?:option|choice))? "
)
_LABEL = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])[.):])\s*")  # (B), B., B), B: before the text of an option
_OPTION = re.compile(r"(?:(?<=\s)|^)(?:\(([A-Z])\)|([A-Z])[.):])(?=\s|$)", re.MULTILINE)
_BETWEEN = re.compile(r"[\s,;]+(?:or|and)?$")  # two options on one line


def matches(answer: str, reference: str, question: str = "", tolerance: float = 0.0) -> bool:
    """Whether an answer says what the reference says.

    They match where their words are the same; where both are numbers that differ by at most `tolerance` times the reference;
    or where both mean the same option of a multiple choice, by its letter, its text, or both.

    Args:
        answer: As a policy wrote it.
        reference: The answer that is right; of a multiple choice its letter, its text, or both, as `B`, `(B)`, `B. a dog`.
        question: What was asked; it may list the options, as `(A) a cat (B) a dog` or `A. a cat` on lines of their own.
        tolerance: By which part of the reference a number may be off, >= 0.
    """
    if _same(answer, reference, tolerance):
        return True
    options = _options(question) or _stated_option(reference)
    wanted = _letter(reference, options)
    return wanted is not None and _letter(answer, options) == wanted


def words_of(text: str) -> str:
    """A text as it is compared: its words, without case, punctuation and articles, numbers up to twenty as digits."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    points = {found.start() for found in _POINT.finditer(folded)}
    kept = "".join(c if at in points else _plain(c) for at, c in enumerate(folded))
    words = [NUMBERS.get(word, word) for word in kept.split()]
    return " ".join([word for word in words if word not in ARTICLES] or words) or folded.strip()


def _plain(character: str) -> str:
    """A character of a word, or what stands for one that is none."""
    if character in "'\u2019":  # an apostrophe joins
        return ""
    return " " if unicodedata.category(character)[0] == "P" or character in "$\u20ac\u00a3\u00a5\u00b0" else character


def _same(answer: str, reference: str, tolerance: float) -> bool:
    number, wanted = _number(answer), _number(reference)
    if number is not None and wanted is not None:
        return abs(number - wanted) <= max(tolerance, ROUNDING) * abs(wanted)
    said = words_of(answer)
    return said == words_of(reference) or words_of(_bare(said)) == words_of(reference)


def _bare(said: str) -> str:
    """The words of an answer without "the answer is" in front."""
    return _SAID.sub("", f"{said} ", count=1).strip() if _SAID.match(f"{said} ") else said


def _number(text: str) -> float | None:
    """The value of a text that is a number and nothing else but its currency, percent or full stop."""
    bare = text.strip()
    if len(bare) > LONGEST:
        return None
    bare = unicodedata.normalize("NFKC", bare).casefold().strip(" \t$\u20ac\u00a3\u00a5%\u00b0").rstrip(".!")
    bare = NUMBERS.get(bare, bare).rstrip("%\u00b0 ")
    if not _NUMBER.fullmatch(bare):
        return None
    value = float(bare.replace(",", "").replace("\u2212", "-"))
    return value if math.isfinite(value) else None


def _options(question: str) -> dict[str, str]:
    """Letter -> words of each option that a question lists, from A on without a gap; empty where it lists none."""
    marks: list[re.Match[str]] = []
    for mark in _OPTION.finditer(question):
        letter = mark[1] or mark[2]
        if letter == chr(ord("A") + len(marks)):
            marks.append(mark)
        elif letter == "A":
            marks = [mark]
    if len(marks) < 2:
        return {}
    ends = [*(mark.start() for mark in marks[1:]), len(question)]
    texts = [question[mark.end() : end].strip().partition("\n")[0] for mark, end in zip(marks, ends, strict=True)]
    return {mark[1] or mark[2]: words_of(_BETWEEN.sub("", text)) for mark, text in zip(marks, texts, strict=True)}


def _stated_option(reference: str) -> dict[str, str]:
    """The one option that a reference of letter and text states, or a lone capital in the place of one."""
    label = _LABEL.match(reference)
    letter = (label[1] or label[2]).upper() if label else reference.strip()
    if not re.fullmatch("[A-Z]", letter):
        return {}
    return {letter: words_of(reference[label.end() :]) if label else ""}


def _letter(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text means, by its letter, by its words, or by both where they agree; None where it means none."""
    said = unicodedata.normalize("NFKC", text).strip()
    label = _LABEL.match(said)
    letter = (label[1] or label[2]).upper() if label else ""
    if label and letter in options:
        rest = words_of(said[label.end() :])
        return letter if not rest or options[letter] in ("", rest) else None
    words = _bare(words_of(said))
    named = [letter for letter, option in options.items() if option and option == words]
    if len(named) == 1:
        return named[0]
    return words.upper() if words.upper() in options else None
