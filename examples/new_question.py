"""A task without masks: a question about an image, and its one right answer.

    lightning fit --config conf/real/sod.yaml --config examples/new_question.yaml
    lightning-sal segment photographs --task examples/new_question.py:HOW_MANY --question "How many dogs are there?"

A sample lies in a JSONL with a `question` and a `reference`, which is the answer that is right:

    {"task": "how_many", "images": ["a.jpg"], "question": "How many dogs are there?", "reference": "2"}

No segmenter is asked, since the task has no kind of prompt; so there is nothing for `lightning-sal score` to score.
"""

from dataclasses import dataclass
from typing import Any

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import AccuracyTask, Answer
from lightning_sal.tasks.blocks import normalised, read_blocks, write_blocks


@dataclass(frozen=True, slots=True)
class Words(Answer):
    """An answer in free words.

    Args:
        words: With white space normalised.
        **kwargs: As for `Answer`.
    """

    words: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The words, where there are any."""
        return (self.words,) if self.words else ()

    def fields(self) -> dict[str, Any]:
        """`words`, a text."""
        return {"words": self.words}


class QuestionTask(AccuracyTask):
    """A question with a reference answer, compared word for word: 1 where both are the same, whatever the case, else 0."""

    def parse(self, text: str) -> Words:
        """See `Task.parse`."""
        blocks = read_blocks(text, self.reasoning)
        words = normalised(blocks.body or "")
        empty = None if words or blocks.body is None else "the answer is empty"
        return Words(
            words,
            reasoning=blocks.reasoning,
            structure_ok=blocks.fault is None,
            grammar_ok=bool(words),
            reason="; ".join(each for each in (blocks.fault, empty) if each) or None,
            reasoning_at=blocks.reasoning_at,  # both for maps of where it looked, see docs/alignment.md
            labels_at=(blocks.answer_at,) if blocks.answer_at else (),
            answer_at=blocks.answer_at,  # for the confidence in the answer alone, see docs/algorithms.md
        )

    def write(self, reasoning: str, answer: Words) -> str:
        """See `Task.write`."""
        text = write_blocks(reasoning, answer.words, self.reasoning)
        if (read := self.parse(text)).reason or read.words != answer.words:
            raise ValueError(f"no {self.name} response from these parts: {read.reason or 'they are read otherwise'}")
        return text

    def agrees(self, answer: Words, group: ImageGroup) -> bool | None:
        """Whether the words are those of the reference."""
        if group.reference is None:
            return None
        return answer.words.casefold() == normalised(group.reference).casefold()


HOW_MANY = QuestionTask(
    name="how_many",
    title="how many",
    instruction="Answer by a number alone. The form is: <think>reasons</think><answer>number</answer>",
    brief="Answer by a number alone. The form is: <answer>number</answer>",
)
