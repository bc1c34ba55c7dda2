"""Attribution maps of responses: where the policy looked for each label of its answer.

Legend: B responses, K images of a group, T tokens of a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_sal.policy.spans import token_spans
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.tasks import Answer, task_of
from lightning_sal.transfer import read

if TYPE_CHECKING:  # scoring reads no policy, and loads none
    from lightning_sal.policy.policy import Policy
    from lightning_sal.policy.prompts import Prompts
    from lightning_sal.policy.tracing import Span

LabelMaps = tuple[tuple[Tensor, ...], ...]  # for each label the maps of the K images


def find_maps(
    answers: Sequence[Answer],
    groups: Sequence[ImageGroup],
    rollout: Rollout,
    policy: Policy,
    prompts: Prompts,
    *,
    micro_batch_size: int | None = None,
    **how: Any,
) -> list[LabelMaps]:
    """The attribution maps of each label of B answers, through the reasoning where the task asks for one.

    Args:
        answers: What was read from the responses.
        groups: B image groups.
        rollout: B responses.
        policy: Reads them once more.
        prompts: P prompts, their responses side by side.
        micro_batch_size: Responses that are read at once, as whole prompts; None takes all.
        **how: Options of `Policy.attribute`.

    Returns:
        For each response the maps of each label; none where the reasoning that is asked for is missing.
    """
    asked, known = [parts_of(answer, group) for answer, group in zip(answers, groups, strict=True)], on_host(rollout)
    spans = [
        response_spans(policy, known, row, [*labels, *([reasoning] if reasoning else [])])
        for row, (labels, reasoning) in enumerate(asked)
    ]
    labels = [both[: len(places)] for both, (places, _) in zip(spans, asked, strict=True)]
    reasoning = [both[-1] if thought else None for both, (_, thought) in zip(spans, asked, strict=True)]
    each = len(answers) // len(prompts)
    at_once = len(prompts) if micro_batch_size is None else max(1, micro_batch_size // each)
    found: list[LabelMaps] = []
    for start in range(0, len(prompts), at_once):  # as often on every rank: its processes may share the weights
        some = range(start, min(start + at_once, len(prompts)))
        rows = slice(some.start * each, some.stop * each)
        part = prompts if at_once >= len(prompts) else prompts.select(some)
        maps = policy.attribute(part, rollout.tokens[rows], rollout.mask[rows], labels[rows], reasoning[rows], **how)
        found += [tuple(of_labels) for of_labels in maps]
    return found


def parts_of(answer: Answer, group: ImageGroup) -> tuple[tuple[tuple[int, int], ...], tuple[int, int] | None]:
    """Where in a response stand the labels that have maps, and the reasoning that they go through, if any."""
    if not task_of(group).reasoning:
        return answer.labels_at, None
    return (answer.labels_at, answer.reasoning_at) if answer.reasoning_at else ((), None)


def on_host(rollout: Rollout) -> Rollout:
    """The same, with its tokens on the CPU, where `response_spans` looks at them one response after the other."""
    tokens, mask = read(rollout.tokens, rollout.mask)
    return replace(rollout, tokens=tokens, mask=mask)


def response_spans(policy: Policy, rollout: Rollout, row: int, places: Sequence[tuple[int, int]]) -> list[Span]:
    """The tokens of a response that hold parts of its text.

    Raises:
        ValueError: If its text is not that of its tokens.
    """
    return text_spans(policy, rollout.tokens[row][rollout.mask[row]].tolist(), rollout.texts[row], places)


def text_spans(policy: Policy, tokens: Sequence[int], text: str, places: Sequence[tuple[int, int]]) -> list[Span]:
    """The tokens that hold parts of a text.

    Args:
        policy: That wrote them.
        tokens: T ids.
        text: What they say.
        places: For each part its first character and the one behind its last.

    Raises:
        ValueError: If the text is not that of the tokens.
    """
    if not places:
        return []
    pieces = policy.pieces(tokens)
    if b"".join(pieces).decode(errors="replace") != text:
        raise ValueError(
            f"the text of a response is not that of its tokens, so no part is found in them: {text[:60]!r}"
        )
    return token_spans(pieces, places)
