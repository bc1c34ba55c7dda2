"""Where each word of a response came from: the parts that a person points at, with their attribution maps.

Words and sentences have direct contributions: the map of a part is the sum, over its tokens, of what each visual token adds
to their logits. Labels are looked at through the reasoning, as `lightning_sal.inference.maps.find_maps` does. So values of
labels are not comparable with those of words.

Legend: B responses, K images of a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_sal.inference.maps import LabelMaps, find_maps, on_host, parts_of, response_spans
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.tasks import Answer
from lightning_sal.tasks.blocks import stripped

if TYPE_CHECKING:
    from lightning_sal.policy.policy import Policy
    from lightning_sal.policy.prompts import Prompts

Place = tuple[int, int]  # first character and the one behind the last

WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}-]\w+)*")
# Where a sentence ends: white space behind its last mark, a mark of Chinese or Japanese, or the end of a line
_END = re.compile(r"(?<=[.!?])\s|(?<=[\u3002\uff01\uff1f])|\n")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a response.

    Args:
        text: As it stands in the response.
        place: Its first character and the one behind its last.
        maps: Of the K images, each (rows, columns) before the ReLU, in logits.
    """

    text: str
    place: Place
    maps: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts of a response; none of a malformed one, in which nobody can say what is reasoning and what an answer.

    Args:
        words: Of the reasoning and of the labels.
        sentences: Of the reasoning.
        labels: Of the answer; none where the reasoning that is asked for is missing.
    """

    words: tuple[Part, ...]
    sentences: tuple[Part, ...]
    labels: tuple[Part, ...]

    @property
    def label_maps(self) -> LabelMaps:
        """The maps of the labels, as `Response.maps` has them."""
        return tuple(label.maps for label in self.labels)


def explain(
    answers: Sequence[Answer], groups: Sequence[ImageGroup], rollout: Rollout, policy: Policy, prompts: Prompts
) -> list[Explanation]:
    """The parts of B responses, in two passes of the policy over them: one for words and sentences, one for labels.

    Args:
        answers: What was read from the responses.
        groups: B image groups.
        rollout: B responses.
        policy: Which gave them.
        prompts: P prompts, their responses side by side.
    """
    words = [word_places(text, answer) for text, answer in zip(rollout.texts, answers, strict=True)]
    sentences = [sentence_places(text, answer) for text, answer in zip(rollout.texts, answers, strict=True)]
    places = [[*one, *other] for one, other in zip(words, sentences, strict=True)]
    known = on_host(rollout)
    spans = [response_spans(policy, known, row, each) for row, each in enumerate(places)]
    direct = policy.attribute(prompts, rollout.tokens, rollout.mask, spans, [None] * len(spans))
    labels = find_maps(answers, groups, rollout, policy, prompts)
    explanations = []
    for row, (text, answer, group) in enumerate(zip(rollout.texts, answers, groups, strict=True)):
        parts = _parts(text, places[row], direct[row])
        count = len(words[row])
        named = _parts(text, parts_of(answer, group)[0], labels[row])
        explanations.append(Explanation(parts[:count], parts[count:], named))
    return explanations


def word_places(text: str, answer: Answer) -> list[Place]:
    """Where the words of the reasoning and of the labels stand in a response, in time linear in its length."""
    blocks = [*([answer.reasoning_at] if answer.reasoning_at else []), *answer.labels_at]
    return [word.span() for block in blocks for word in WORD.finditer(text, *block)]


def sentence_places(text: str, answer: Answer) -> list[Place]:
    """Where the sentences of the reasoning stand in a response, likewise; what holds no word is none."""
    return [] if answer.reasoning_at is None else list(_sentences(text, *answer.reasoning_at))


def _sentences(text: str, start: int, end: int) -> Iterator[Place]:
    borders = [start, *(found.end() for found in _END.finditer(text, start, end)), end]
    for first, last in pairwise(borders):
        place = stripped(text, first, last)
        if place and WORD.search(text, *place):
            yield place


def _parts(text: str, places: Sequence[Place], maps: Sequence[tuple[Tensor, ...]]) -> tuple[Part, ...]:
    return tuple(Part(text[slice(*place)], place, each) for place, each in zip(places, maps, strict=True))
