"""A grammar of tags: the answer block holds referring expressions, each between an opening and a closing tag.

In the answer block a fault (another tag, text between, an expression that is empty, unclosed, or with `[semantic]`
misplaced) costs the grammar half of the format; the expressions without a fault of their own remain. More such expressions
than the task allows leave none, because which one is meant is unknown. Reasoning may be empty and may quote the tags of
expressions; an expression holds no angle bracket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks.base import Answer, Task
from lightning_sal.tasks.blocks import (
    mend_blocks,
    normalised,
    quoted,
    read_blocks,
    respelled,
    stripped,
    tags_of,
    write_blocks,
)
from lightning_sal.tasks.lenient_phrases import find_phrases
from lightning_sal.tasks.registry import answer_tags

SEMANTIC = "[semantic]"
_LOOSE = re.compile(r"\[\s*semantic\s*\][:：]?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Expressions(Answer):
    """Referring expressions.

    Args:
        expressions: Without their tags, white space normalised, `[semantic] ` kept in front.
        **kwargs: As for `Answer`.
    """

    expressions: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The expressions."""
        return self.expressions

    def fields(self) -> dict[str, Any]:
        """`expressions`, a list of texts."""
        return {"expressions": list(self.expressions)}


@dataclass(frozen=True, kw_only=True)
class TagTask(Task):
    """A task that is answered by referring expressions in tags, of which a segmenter makes masks.

    Args:
        tag: Around each expression: `<tag>...</tag>`.
        semantic: Whether an expression may, must or must not be a bare category name marked by `[semantic]`.
        single: Whether exactly one expression answers the task, instead of one or more.
        **kwargs: As for `Task`.
    """

    tag: str
    semantic: Literal["optional", "required", "forbidden"] = "forbidden"
    single: bool = False

    prompt_type = str

    @property
    def tags(self) -> tuple[str, ...]:
        """See `Task.tags`."""
        return (self.tag,)

    def parse(self, text: str) -> Expressions:
        """See `Task.parse`."""
        blocks = read_blocks(text, self.reasoning)
        # Where the answer block is not exactly one, the structure already says so.
        found, grammar = ((), None) if blocks.body is None else self._read(blocks.body)
        places = (stripped(text, blocks.body_at + start, blocks.body_at + end) for _, start, end in found)
        answer = Expressions(
            tuple(expression for expression, _, _ in found),
            reasoning=blocks.reasoning,
            structure_ok=blocks.fault is None,
            grammar_ok=blocks.body is not None and grammar is None,
            reason="; ".join(fault for fault in (blocks.fault, grammar) if fault) or None,
            reasoning_at=blocks.reasoning_at,
            labels_at=tuple(place for place in places if place),
            answer_at=blocks.answer_at,
        )
        return self.looked(answer)

    def read_leniently(self, text: str) -> Expressions:
        """See `Task.read_leniently`; what `find_phrases` finds, each with or without `[semantic]` as the task has it."""
        tags = dict.fromkeys((self.tag, *answer_tags()))
        found = [(self._marked(phrase.text), phrase.place) for phrase in find_phrases(text, tuple(tags))]
        named = [each for each in found if each[0]][: 1 if self.single else None]
        return replace(
            self.parse(text),
            expressions=tuple(expression for expression, _ in named),
            labels_at=tuple(place for _, place in named),
        )

    def write(self, reasoning: str, answer: Expressions) -> str:
        """See `Task.write`."""
        return self.response(reasoning, answer.expressions)

    def response(self, reasoning: str, expressions: Sequence[str]) -> str:
        """Write a response, one whose format reward is 1 and that parses into these very expressions.

        Args:
            reasoning: For the think block; empty where the task asks for none.
            expressions: Without tags, `[semantic] ` in front where the task has it.

        Raises:
            ValueError: If reasoning or expressions do not fit the task's format.
        """
        expressions = tuple(normalised(expression) for expression in expressions)
        opens, closes = tags_of(self.tag)
        body = "".join(f"{opens}{expression}{closes}" for expression in expressions)
        text = write_blocks(reasoning, body, self.reasoning)
        answer = self.parse(text)
        if answer.reason or answer.expressions != expressions:
            raise ValueError(f"no {self.name} response from these parts: {answer.reason or 'an expression holds tags'}")
        return text

    def mend(self, text: str) -> tuple[tuple[str, ...], Expressions]:
        """See `Task.mend`.

        Mended are the blocks (see `mend_blocks`), the case and spacing of tags and of `[semantic]`, and a full stop behind
        an expression. Where every answer has one `[semantic]`, it is put in front of one that lacks it.
        """
        before, body = mend_blocks(text)
        body = _LOOSE.sub(f"{SEMANTIC} ", respelled(body, self.tag))
        opening = tags_of(self.tag)[0]
        if self.semantic == "required" and body.count(opening) == 1 and SEMANTIC not in body:
            body = body.replace(opening, f"{opening}{SEMANTIC} ")
        answer = self.without_reasoning().parse(write_blocks("", body, think=False))
        if answer.reason is not None:
            raise ValueError(answer.reason)
        expressions = tuple(each.rstrip(".,;:") for each in answer.expressions)
        return before, replace(answer, expressions=expressions, labels_at=())  # which were places in the mended text

    def prompts(self, answer: Expressions, size: tuple[int, int]) -> tuple[str, ...]:
        """The expressions, the same for each image of a group."""
        return answer.expressions

    def agrees(self, answer: Expressions, group: ImageGroup) -> bool | None:
        """Whether the expressions are those of the annotated response, in any order."""
        if group.response is None:
            return None
        return sorted(answer.expressions) == sorted(self.parse(group.response).expressions)

    def _read(self, body: str) -> tuple[tuple[tuple[str, int, int], ...], str | None]:
        """Expressions of an answer block without a fault of their own, where each begins and ends, and the first fault."""
        # Linear: what is between two tags holds no "<", so no character is visited from two starting points.
        found = list(re.finditer(rf"<{self.tag}>([^<>]*)</{self.tag}>", body))
        borders = [0, *(edge for tagged in found for edge in tagged.span()), len(body)]
        stray = "".join(body[start:end] for start, end in zip(borders[::2], borders[1::2], strict=True))
        named = [(normalised(tagged[1]), *tagged.span(1)) for tagged in found]
        faults = [self._fault(expression) for expression, _, _ in named]
        sound = tuple(each for each, fault in zip(named, faults, strict=True) if fault is None)
        surplus = self.single and len(sound) > 1
        if stray.strip():
            faults.insert(0, f"the answer may hold <{self.tag}>...</{self.tag}> alone, not {quoted(stray)}")
        if surplus:
            faults.append(f"{len(sound)} expressions where exactly one is asked for")
        if not found:
            faults.append("the answer holds no expression")
        return () if surplus else sound, next((fault for fault in faults if fault), None)

    def _marked(self, phrase: str) -> str:
        """A phrase as an expression of this task: `[semantic]` in front where it may or must be, and nowhere else."""
        bare = normalised(_LOOSE.sub(" ", phrase))
        marked = self.semantic == "required" or (self.semantic == "optional" and _LOOSE.search(phrase))
        return f"{SEMANTIC} {bare}" if bare and marked else bare

    def _fault(self, expression: str) -> str | None:
        """Why an expression, white space normalised, does not fit the task, or None where it does."""
        if not expression:
            return f"empty <{self.tag}></{self.tag}>"
        before, mark, name = expression.partition(SEMANTIC)
        if not mark:
            return f"{quoted(expression)} lacks {SEMANTIC} in front" if self.semantic == "required" else None
        if self.semantic == "forbidden":
            return f"{quoted(expression)}: this task has no {SEMANTIC}"
        if before or SEMANTIC in name or not name.startswith(" "):
            return f"{quoted(expression)}: {SEMANTIC} must stand once, in front of a name"
        return None
