"""Visual question answering: a question about an image, reasoning in one think block, then the answer in free words.

The response keeps the form `<think>reasoning</think>answer`: it begins with the one think block, reasoning and answer hold
more than white space, and nothing else bears these tags.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks.accuracy import AccuracyTask
from lightning_sal.tasks.base import Answer
from lightning_sal.tasks.blocks import quoted, stripped, tags_of, think_block
from lightning_sal.tasks.lenient import answer_places
from lightning_sal.tasks.matching import matches
from lightning_sal.tasks.registry import register

_OPENS, _CLOSES = tags_of("think")


@dataclass(frozen=True, slots=True)
class Text(Answer):
    """An answer in free words.

    Args:
        text: Without white space at its ends; empty where the response does not keep the form.
        **kwargs: As for `Answer`.
    """

    text: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The text, where there is any."""
        return (self.text,) if self.text else ()

    def fields(self) -> dict[str, Any]:
        """`text`."""
        return {"text": self.text}


class TextTask(AccuracyTask):
    """A task that is answered in free words behind the reasoning, and compared with a reference answer.

    The format is whole or nothing, 1 or 0. Correctness is 1 where the answer matches the reference as
    `lightning_sal.tasks.matching.matches` has it, else 0.
    """

    needs = frozenset({"reference"})
    has_question = True

    def parse(self, text: str) -> Text:
        """See `Task.parse`."""
        thought, behind = (None, 0)
        if (fault := self._fault(text)) is None and self.reasoning:
            end = text.index(_CLOSES)
            thought, behind = stripped(text, len(_OPENS), end), end + len(_CLOSES)
        said = stripped(text, behind, len(text)) if fault is None else None
        if fault is None and self.reasoning and thought is None:
            fault = "the reasoning is empty"
        elif fault is None and said is None:
            fault = "the answer is empty"
        if fault is not None or said is None:
            return Text(structure_ok=False, grammar_ok=False, reason=fault)
        reasoning = text[slice(*thought)] if thought else ""
        read = Text(text[slice(*said)], reasoning=reasoning, reasoning_at=thought, labels_at=(said,), answer_at=said)
        return self.looked(read)

    def read_leniently(self, text: str) -> Text:
        """See `Task.read_leniently`; an answer block, what follows "Answer:", or all that stands behind the reasoning."""
        strict = self.parse(text)
        places = (stripped(text, *place) for place, whole in answer_places(text) if whole)
        said = next(filter(None, places), None)
        return replace(strict, text=text[slice(*said)], labels_at=(said,)) if said else strict

    def write(self, reasoning: str, answer: Text) -> str:
        """See `Task.write`."""
        text = (think_block(reasoning.strip()) if self.reasoning else "") + answer.text
        read = self.parse(text)
        if read.reason or read.text != answer.text:
            raise ValueError(f"no {self.name} response from these parts: {read.reason or 'they are read otherwise'}")
        return text

    def agrees(self, answer: Text, group: ImageGroup) -> bool | None:
        """Whether the answer matches the reference."""
        if group.reference is None:
            return None
        return matches(answer.text, group.reference, group.question)

    def _fault(self, text: str) -> str | None:
        """Why the tags of a response are not as asked, or None where they are."""
        wanted = int(self.reasoning)
        for tag in (_OPENS, _CLOSES):
            if (count := text.count(tag)) != wanted:
                return f"found {count} {tag} where {wanted} must stand"
        if not self.reasoning:
            return None
        if not text.startswith(_OPENS):
            return f"text before {_OPENS}: {quoted(text.partition(_OPENS)[0])}"
        return None


_VQA = """\
Look at the image and answer the question about it.
First reason between <think> and </think>: say which parts of the image the answer rests on, what they show, and what \
follows from it. Then write the answer, as short as it can be, behind </think>. Add nothing before or between. The form is:
<think>reasoning</think>answer"""

_VQA_BRIEF = """\
Look at the image and answer the question about it, as briefly as possible. Write the answer alone."""

VQA = register(
    TextTask(
        name="vqa",
        title="visual question answering",
        instruction=_VQA,
        brief=_VQA_BRIEF,
        layout="lightning_sal.datasets.vqa.LAYOUT",
    )
)
