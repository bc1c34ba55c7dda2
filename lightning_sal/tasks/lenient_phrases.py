"""The phrases by which a response answers that does not keep the grammar of tags: in other tags, lists, JSON, or alone.

What is longer than a phrase and no list, or says that there is no answer, gives none. Everything takes time linear in the
length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightning_sal.tasks.blocks import normalised
from lightning_sal.tasks.lenient import Place, answer_places, unfenced

WORDS, LETTERS = 15, 180  # of a phrase that no tags mark as one, at most
# A text in quotes, to the end of everything where it has none
_STRING = re.compile(
    r'"(?P<double>(?:[^"\\]|\\.)*+)(?:"|\Z)' r"|(?<!\w)'(?P<single>(?:[^'\\]|\\.|'(?=\w))*+)(?:'|\Z)", re.DOTALL
)
_JSON = re.compile(r"""[\[{]\s{0,99}["'{\[]""")
_KEYS = (
    "expression", "phrase", "label", "name", "object", "instance", "region", "category", "class", "answer", "description",
)  # fmt: skip
# What stands before an item of a list
_ITEM = re.compile(r"(?P<depth>[ \t]{0,40})(?:\*\*|__)?(?:[-*•–+]|\(?\d{1,3}[.):])(?:\*\*|__)?[ \t]{1,40}(?=\S)")
# What says that a phrase follows, or stood before, and no more: "the most salient region in this image is", "Region 1:"
_SALIENT = (
    r"(?:(?:the|my)\s)?"
    r"(?:(?:most|final|main|only|single|common|shared|visually|co-?salient|salient|striking|prominent|eye-?catching)\s){0,4}"
    r"(?:answer|expression|phrase|label|name|category|object|region|instance|subject)s?(?:\s\d{1,3})?"
    r"(?:\s(?:in|of|across)\s(?:the|this|these|all)(?:\s(?:the|these))?\s(?:image|picture|photo)s?)?"
)
_LEAD = re.compile(
    rf"(?:in\s(?:the|this)\s(?:image|picture|photo),?\s)?{_SALIENT}(?:\s?[:：]|\s(?:is|are)(?=[\s:]))[\s:*_]{{0,20}}",
    re.IGNORECASE,
)
_STRESSED = re.compile(r"[:：]\s\*\*")
# Of the steps of reasoning
_TITLE = re.compile(
    r"(?:scene|analysis|conclusion|objects|reasoning|answer|note|summary|(?:image|picture|photo)\s?\d*)", re.IGNORECASE
)
# Between a phrase and what is said about it
_BEHIND = re.compile(
    rf"\s[-–—]{{1,2}}\s|[:：](?=\s)|\*\*|,?\s(?:because|which|since)\s|\s(?:is|are)\s{_SALIENT}", re.IGNORECASE
)
# Between phrases on one line; "and" alone joins what belongs together
_NEXT = re.compile(r"[,;]\s(?:and\s)?(?=(?:an?|the)\s)|;\s", re.IGNORECASE)
_LAST = re.compile(rf"{_NEXT.pattern}|\sand\s(?=(?:an?|the)\s)", re.IGNORECASE)
_SENTENCES = re.compile(r"[.!?]\s\S|[。！？].|[!?！？]\Z|\A\W*\Z")
_SENTENCE_END = re.compile(r"[.!?]\s")
_REFUSAL = re.compile(
    r"\b(?:i|sorry|cannot|can['’]t|unable|don['’]t|unfortunately|not (?:possible|sure))\b|抱歉|对不起|无法"
    r"|\A(?:none|nothing|null|n/?a|unknown|no|yes|ok|okay)\Z|\Athere (?:is|are) no"
    r"|\A(?:the|this|these) (?:image|picture|photo)s? (?:do|does)(?: not|n['’]t)"
    r"|\A(?:not|unclear|unknown|unsure)\b"
    r"|\Ano (?:single |clear |common |visible )?(?:salient|object|region|instance|image|answer)",
    re.IGNORECASE,
)
_AROUND = "*_`\"'“”‘’«»#"  # what stands around a phrase and is none of it


class Phrase(NamedTuple):
    """A phrase, white space normalised, and where it stands in the text: its first character and the one behind its last."""

    text: str
    place: Place


def find_phrases(text: str, tags: Sequence[str]) -> list[Phrase]:
    """The phrases that a response answers by, in their order.

    Args:
        text: Of any content.
        tags: Names of the tags that are asked for around a phrase, or are around those of other tasks.
    """
    for place, whole in answer_places(text):
        if found := list(_tagged(text, *place, tags)):
            return found
        if whole and (found := _without_tags(text, *unfenced(text, place), tags)):
            return found
    return []


def _tagged(text: str, start: int, end: int, tags: Sequence[str]) -> Iterator[Phrase]:
    """What stands between tags, whichever closes it and however they are spelt; to the end of the line if none does."""
    names = "|".join(map(re.escape, tags))
    marks = list(re.compile(rf"[<\[]\s?(/?)\s?(?:{names})\s?[>\]]", re.IGNORECASE).finditer(text, start, end))
    for number, mark in enumerate(marks):
        following = marks[number + 1] if number + 1 < len(marks) else None
        if mark[1]:
            continue
        if following is not None and following[1]:
            place = _stripped(text, mark.end(), following.start(), "")
            if place[0] < place[1]:
                yield Phrase(normalised(text[slice(*place)]), place)
            continue
        stop = following.start() if following else end
        line = text.find("\n", mark.end(), stop)
        if phrase := _phrase(text, mark.end(), stop if line < 0 else line):
            yield phrase


def _without_tags(text: str, start: int, end: int, tags: Sequence[str]) -> list[Phrase]:
    """Phrases in quotes, in a list, or on lines of their own."""
    if opening := _JSON.search(text, start, end):
        return _quoted(text, opening.start(), end, tags)
    lists = _lists(text, start, end)
    return _of_lists(lists) if lists else _on_lines(text, start, end)


def _quoted(text: str, start: int, end: int, tags: Sequence[str]) -> list[Phrase]:
    """The texts of JSON, or of what looks like it, that stand under the key that likeliest names a phrase."""
    by_key: dict[str, list[Phrase]] = {}
    key = ""
    for string in _STRING.finditer(text, start, end):
        part = "double" if string["double"] is not None else "single"
        if text[string.end() : string.end() + 9].lstrip().startswith(":"):
            key = re.sub(r"[^a-z]", "", string[part].lower()[:99])
            continue
        under = by_key.setdefault(key, [])
        if is_phrase(words := normalised(_unescaped(string[part]))):
            under.append(Phrase(words, string.span(part)))
    named = [key for tag in tags for key in by_key if key == tag.lower()]
    named += [key for name in _KEYS for key in by_key if key.endswith((name, f"{name}s"))]
    if not named and len(by_key) == 1:
        named = list(by_key)
    return by_key[named[0]] if named else []


def _unescaped(text: str) -> str:
    try:
        return json.loads('"' + text.replace("\\'", "'") + '"') if "\\" in text else text
    except ValueError:
        return text


def _lists(text: str, start: int, end: int) -> list[list[tuple[int, Phrase | None]]]:
    """The lists of Markdown that a text holds: of each item how far it is indented, and the phrase with which it begins."""
    lists: list[list[tuple[int, Phrase | None]]] = [[]]
    for line_start, line_end in _lines(text, start, end):
        if item := _ITEM.match(text, line_start, line_end):
            lists[-1].append((len(item["depth"].expandtabs()), _phrase(text, item.end(), line_end)))
        elif not text[line_start].isspace():
            lists.append([])
    return list(filter(None, lists))


def _of_lists(lists: Sequence[Sequence[tuple[int, Phrase | None]]]) -> list[Phrase]:
    """The items of the last list of which each begins with a phrase; items within items are what is said about those."""
    for items in reversed(lists):
        least = min(depth for depth, _ in items)
        phrases = [phrase for depth, phrase in items if depth == least]
        if None not in phrases:
            return [phrase for phrase in phrases if phrase is not None]
    return []


def _on_lines(text: str, start: int, end: int) -> list[Phrase]:
    """Phrases that stand alone, one or more a line; lines that end in a colon or a call announce them."""
    found: list[Phrase] = []
    for line_start, line_end in _lines(text, start, end):
        if text[line_start:line_end].rstrip(" \t\r*_").endswith((":", "：", "!")):
            continue
        lead = _LEAD.match(text, *_stripped(text, line_start, line_end, _AROUND))
        lead = lead or _STRESSED.search(text, line_start, line_end)
        phrases = _side_by_side(text, lead.end() if lead else line_start, line_end)
        if not phrases:
            return _announced(text, start, end)
        found += phrases
    return found


def _announced(text: str, start: int, end: int) -> list[Phrase]:
    """The phrases of those sentences of a prose that say "the most salient object is", or the like."""
    found: list[Phrase] = []
    for place in _lines(text, start, end):
        ends = [mark.start() + 1 for mark in _SENTENCE_END.finditer(text, *place)]
        for sentence in zip([place[0], *ends], [*ends, place[1]], strict=True):
            stripped = _stripped(text, *sentence, _AROUND)
            if lead := _LEAD.match(text, *stripped):
                found += _side_by_side(text, lead.end(), stripped[1])
    return found


def _side_by_side(text: str, start: int, end: int) -> list[Phrase]:
    """The phrases on one line; none where a part of it is no phrase."""
    borders = [start]
    for between in _LAST.finditer(text, start, end) if _NEXT.search(text, start, end) else ():
        borders += between.span()
    parts = [*borders, end]
    phrases = [_phrase(text, *place) for place in zip(parts[::2], parts[1::2], strict=True)]
    return [] if None in phrases else [phrase for phrase in phrases if phrase is not None]


def _lines(text: str, start: int, end: int) -> Iterator[Place]:
    """Where the lines stand that hold more than white space."""
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        if text[start:stop].strip():
            yield start, stop
        start = stop + 1


def _phrase(text: str, start: int, end: int) -> Phrase | None:
    """The phrase with which a line, or a part of one, begins; None where it begins with none."""
    start, end = _stripped(text, start, end, "")
    if text.startswith("**", start) and (closing := text.find("**", start + 2, end)) > 0:
        title = text[slice(*_stripped(text, start, closing, _AROUND + ":"))]
        start, end = (closing, end) if _LEAD.fullmatch(f"{title}:") else (start, closing)
    start, end = _stripped(text, start, end, _AROUND + ":")
    if lead := _LEAD.match(text, start, end):
        start = lead.end()
    if behind := _BEHIND.search(text, start, end):
        end = behind.start()
    start, end = _stripped(text, start, end, _AROUND)
    words = normalised(text[start:end])
    return Phrase(words, (start, end)) if is_phrase(words) else None


def is_phrase(words: str) -> bool:
    """Whether words can name something: neither too many, nor sentences, nor the title of a step, nor a refusal."""
    return (
        0 < len(words) <= LETTERS
        and len(words.split()) <= WORDS
        and not _TITLE.fullmatch(words)
        and not _SENTENCES.search(words)
        and not _REFUSAL.search(words)
    )


def _stripped(text: str, start: int, end: int, around: str) -> Place:
    """A place without white space, these characters and other tags at its ends, nor, with such, a full stop or comma."""
    behind = around and around + ".,;"
    while start < end:
        if text[start].isspace() or text[start] in around or (around and text[start] == ">"):
            start += 1
        elif around and text[start] == "<" and (close := text.find(">", start, min(start + 40, end))) > 0:
            start = close + 1
        else:
            break
    while start < end:
        if text[end - 1].isspace() or text[end - 1] in behind:
            end -= 1
        elif around and text[end - 1] == ">" and (opening := text.rfind("<", max(start, end - 40), end)) >= 0:
            end = opening
        else:
            break
    return start, end
