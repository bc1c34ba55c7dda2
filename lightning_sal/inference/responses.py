"""From responses to what they are judged by: the answer in each, and the masks that a segmenter finds for it.

Legend: B responses, K images of a group, E prompts of an answer, N masks of an image, T tokens of a response.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightning_sal.frames import ORIGINAL, Frame
from lightning_sal.inference.maps import find_maps
from lightning_sal.inference.words import Explanation
from lightning_sal.objectives import token_confidence
from lightning_sal.samples import ImageGroup, Rollout, Usage
from lightning_sal.segmenters.base import Segmenter, find, require_fit
from lightning_sal.tasks import Answer, get_task, task_of
from lightning_sal.transfer import read

if TYPE_CHECKING:
    from lightning_sal.policy.policy import Policy
    from lightning_sal.policy.prompts import Prompts

# What a reward term or an evaluation may need beside the answer
MASKS = "masks"
MAPS = "maps"

Reading = Literal["strict", "lenient"]
"""How an answer is read: as its task writes it, or, where that finds nothing to segment, as other models may write it."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response with all that it may be judged by; what nobody needs is not computed, and None.

    Args:
        group: The image group that it answers.
        text: The whole response.
        answer: What was read from it.
        truncated: Whether it hit the token limit before it ended.
        masks: K masks (N, H, W) bool, as the task composes them: N = 1 for a region, one a prompt for instances.
        prompt_masks: K masks (E, H, W) bool, one a prompt.
        presence: K tensors (E,), how sure the segmenter is that the image shows what each prompt names, in [0, 1] or NaN;
            None where it does not say.
        maps: For each label of the answer the attribution maps of the K images, (rows, columns) before the ReLU; none where
            there is no reasoning to look through, though the task asks for it.
        values: What the task's measures gave: a dictionary an image, or one in all; None where they were not taken.
        tokens: (T,) ids of its tokens, on the CPU.
        logp: (T,) log-probabilities of the tokens in nats, under the policy that sampled, likewise.
        confidence: Mean probability of the tokens, in [0, 1]; None where their probabilities are not known.
        usage: What it took; None where nothing of that is known.
    """

    group: ImageGroup
    text: str
    answer: Answer
    truncated: bool = False
    masks: tuple[Tensor, ...] | None = None
    prompt_masks: tuple[Tensor, ...] | None = None
    presence: tuple[Tensor, ...] | None = None
    maps: tuple[tuple[Tensor, ...], ...] | None = None
    values: tuple[dict[str, float], ...] | None = None
    tokens: Tensor | None = None
    logp: Tensor | None = None
    confidence: float | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the policy and the segmenter answered to one group.

    Args:
        group: The image group.
        text: The whole response.
        answer: What was read from it.
        masks: K boolean tensors of shape (N, H, W), each as large as its image; empty for a task without masks.
        confidence: Mean probability of the response's tokens, in [0, 1]; None where their probabilities are not known.
        prompt_masks: K boolean tensors of shape (E, H, W), one mask a prompt, of which `masks` is composed; None where they
            were not kept.
        maps: Attribution maps, as in `Response`; None where they were not asked for.
        explanation: The maps of every word, sentence and label; None where it was not asked for.
        usage: What the response took; None where nothing of that is known.
        presence: As in `Response`.

    Raises:
        ValueError: If the confidence is NaN.
    """

    group: ImageGroup
    text: str
    answer: Answer
    masks: tuple[Tensor, ...]
    confidence: float | None
    prompt_masks: tuple[Tensor, ...] | None = None
    maps: tuple[tuple[Tensor, ...], ...] | None = None
    explanation: Explanation | None = None
    usage: Usage | None = None
    presence: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if self.confidence is not None and math.isnan(self.confidence):
            raise ValueError(
                f"{', '.join(self.group.paths) or self.group.key}: the policy computes NaN and answers nothing: take "
                "bfloat16 or float32 for float16, or weights of before that"
            )

    @property
    def expressions(self) -> tuple[str, ...]:
        """What is answered, for people to read: one text a mask of `drawn`."""
        return self.answer.labels

    @property
    def reason(self) -> str | None:
        """Why the response is malformed, or None."""
        return self.answer.reason

    @property
    def drawn(self) -> tuple[Tensor, ...]:
        """What a picture shows: the mask of each prompt, or the task's masks where those were not kept."""
        return self.masks if self.prompt_masks is None else self.prompt_masks

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Prediction:
        """The same prediction with its masks, and those of its group, on `device`."""

        def moved(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(device, non_blocking=non_blocking) for tensor in tensors)

        parts = None if self.prompt_masks is None else moved(self.prompt_masks)
        presence = self.presence and moved(self.presence)
        group = self.group.to(device, non_blocking)
        return replace(self, group=group, masks=moved(self.masks), prompt_masks=parts, presence=presence)


def prediction_of(response: Response) -> Prediction:
    """A response whose masks are known, as people see it."""
    return Prediction(
        response.group,
        response.text,
        response.answer,
        response.masks or (),
        response.confidence,
        response.prompt_masks,
        response.maps,
        usage=response.usage,
        presence=response.presence,
    )


def read_responses(groups: Sequence[ImageGroup], rollout: Rollout, reading: Reading = "strict") -> list[Response]:
    """The answers in the responses of a rollout.

    Args:
        groups: B image groups, one a response; a group may come several times.
        rollout: B responses.
        reading: How answers are read.

    Raises:
        ValueError: If there are not as many groups as responses, or a task is unknown.
    """
    confidence = token_confidence(rollout.logp, rollout.mask)
    *numbers, tokens, logp = read(confidence, rollout.mask.sum(1), rollout.truncated, rollout.tokens, rollout.logp)
    confidence, lengths, truncated = (each.tolist() for each in numbers)
    responses = responses_of(
        groups,
        rollout.texts,
        truncated=truncated,
        confidence=confidence,
        usage=[Usage(output_tokens=length) for length in lengths],
        frame=rollout.frame,
        look=rollout.look,
        reading=reading,
    )
    return [
        replace(response, tokens=tokens[row, :length], logp=logp[row, :length])
        for row, (response, length) in enumerate(zip(responses, lengths, strict=True))
    ]


def responses_of(
    groups: Sequence[ImageGroup],
    texts: Sequence[str],
    *,
    truncated: Sequence[bool] | None = None,
    confidence: Sequence[float | None] | None = None,
    usage: Sequence[Usage | None] | None = None,
    frame: Frame = ORIGINAL,
    look: str | None = None,
    reading: Reading = "strict",
) -> list[Response]:
    """The answers in texts, wherever those came from.

    Args:
        groups: B image groups, one a text; a group may come several times.
        texts: B responses.
        truncated: Whether each hit a limit before it ended; None where none did.
        confidence: Mean probability of the tokens of each, in [0, 1]; None where it is not known.
        usage: What each took; None where it is not known.
        frame: In which units the texts state places.
        look: The tag that their reasoning was asked for, as in `Rollout`.
        reading: How answers are read.

    Raises:
        ValueError: If there are not as many groups as texts, or a task is unknown.
    """
    if len(groups) != len(texts):
        raise ValueError(f"{len(groups)} groups and {len(texts)} responses: there must be one each")
    unknown = [None] * len(texts)
    return [
        Response(
            group, text, read_answer(text, group, frame, look, reading), truncated=cut, confidence=sure, usage=used
        )
        for group, text, cut, sure, used in zip(
            groups, texts, truncated or [False] * len(texts), confidence or unknown, usage or unknown, strict=True
        )
    ]


def read_answer(
    text: str,
    group: ImageGroup,
    frame: Frame = ORIGINAL,
    look: str | None = None,
    reading: Reading = "strict",
) -> Answer:
    """The answer in a response, its places in pixels of the original image.

    Args:
        text: The response.
        group: What it answers.
        frame: In which units it states places.
        look: The tag that its reasoning was asked for, as in `Rollout`.
        reading: How the answer is read. Its faults, and so its share of the format, are always those of the strict reading.
    """
    task = task_of(group, look)
    answer = task.parse(text)
    if reading == "lenient" and not task.answered(answer):
        answer = task.read_leniently(text)
    return task.locate(answer, group, frame)


def find_masks(responses: Sequence[Response], segmenter: Segmenter[Any]) -> list[Response]:
    """The responses with their masks, for which the segmenter is called once.

    Args:
        responses: B responses.
        segmenter: Gets every image of every group with the prompts of its answer, which may be none; those of tasks
            without masks it does not get.

    Raises:
        ValueError: If the segmenter takes other prompts than a task's, or does not give one boolean mask a prompt.
    """
    images, prompts = [], []
    for response in responses:
        task = get_task(response.group.task)
        require_fit(segmenter, task.prompt_type, task.name)
        for image in response.group.images if task.prompt_type else ():
            images.append(image)
            prompts.append(task.prompts(response.answer, (image.shape[0], image.shape[1])))
    found = find(segmenter, images, prompts) if images else []
    if len(found) != len(images):
        raise ValueError(f"the segmenter gave masks for {len(found)} images and was asked about {len(images)}")
    following = iter(zip(found, prompts, strict=True))
    segmented = []
    for response in responses:
        task, group = get_task(response.group.task), response.group
        shown = group.images if task.prompt_type else ()
        own = [next(following) for _ in shown]
        each = tuple(_checked(f.masks, asked, group, image) for (f, asked), image in zip(own, shown, strict=True))
        presence = tuple(f.presence for f, _ in own if f.presence is not None) or None
        segmented.append(replace(response, prompt_masks=each, masks=tuple(map(task.compose, each)), presence=presence))
    return segmented


def gather(
    groups: Sequence[ImageGroup],
    rollout: Rollout,
    segmenter: Segmenter[Any],
    needs: Collection[str] = (MASKS,),
    *,
    policy: Policy | None = None,
    prompts: Prompts | None = None,
    micro_batch_size: int | None = None,
    reading: Reading = "strict",
) -> list[Response]:
    """The responses of a rollout with what is needed of them, and no more.

    Args:
        groups: B image groups, one a response.
        rollout: B responses.
        segmenter: Asked once, where masks are needed.
        needs: What is needed beside the answer: `MASKS`, `MAPS`.
        policy: Whose attribution maps are needed, if any are.
        prompts: The P prompts of the responses, equally many of each side by side.
        micro_batch_size: Responses that are read at once for their maps; None takes all.
        reading: How answers are read.

    Raises:
        ValueError: If maps are needed and there is no policy here.
    """
    responses = read_responses(groups, rollout, reading)
    if MASKS in needs:
        responses = find_masks(responses, segmenter)
    if MAPS in needs:
        if policy is None or prompts is None:
            raise ValueError("attribution maps are needed, and the policy that answered is not here to be looked into")
        responses = with_maps(responses, rollout, policy, prompts, micro_batch_size)
    return responses


def with_maps(
    responses: Sequence[Response],
    rollout: Rollout,
    policy: Policy,
    prompts: Prompts,
    micro_batch_size: int | None = None,
) -> list[Response]:
    """The responses with their attribution maps; arguments as for `gather`."""
    answers, groups = [each.answer for each in responses], [each.group for each in responses]
    maps = find_maps(answers, groups, rollout, policy, prompts, micro_batch_size=micro_batch_size)
    return [replace(response, maps=each) for response, each in zip(responses, maps, strict=True)]


def _checked(mask: Tensor, prompts: Sequence[Any], group: ImageGroup, image: Tensor) -> Tensor:
    wanted = (len(prompts), *image.shape[:2])
    if mask.dtype != torch.bool or mask.shape != wanted:
        raise ValueError(
            f"{group.key}: the segmenter gave {mask.dtype} masks of shape {tuple(mask.shape)}; "
            f"torch.bool of shape {wanted} was expected, one mask a prompt as large as the image"
        )
    return mask
