"""What a segmenter offers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, get_args, get_origin, get_type_hints

from torch import Tensor

Prompt = TypeVar("Prompt", bound=Hashable, contravariant=True)


class Segmenter(Protocol[Prompt]):
    """Turns prompts into masks: `Segmenter[str]` from words, `Segmenter[VisualPrompt]` from boxes and points.

    Any class with this method is one, and YAML names it by its class_path; there the method has parameters of these names,
    and annotations with the kind of prompt that it takes in place of `Prompt`. One that is a `torch.nn.Module` is frozen and
    moved to the device of the policy.
    """

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[Prompt]]) -> list[Tensor]:
        """One mask a prompt, in the frame of its image.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            prompts: For each image its E >= 0 prompts; of words tags are removed and `[semantic]` is kept, boxes and points
                are in pixels of the image.

        Returns:
            B boolean tensors of shape (E, H, W), True inside the object.
        """
        ...


class Found(NamedTuple):
    """What a segmenter found on an image.

    Args:
        masks: (E, H, W) bool, one mask a prompt, True inside the object.
        presence: (E,) how sure the segmenter is that the image shows what a prompt names, in [0, 1], and NaN for a prompt of
            which it does not say; None where it says so of none.
    """

    masks: Tensor
    presence: Tensor | None = None


def find(segmenter: Any, images: Sequence[Tensor], prompts: Sequence[Sequence[Any]]) -> list[Found]:
    """What a segmenter finds on each image, with its presence scores where it has some.

    Args:
        segmenter: Any; one that knows presence scores has a method `segment_with_presence`, which takes what `segment`
            takes and gives a `Found` an image.
        images: As for `Segmenter.segment`.
        prompts: Likewise.
    """
    if hasattr(segmenter, "segment_with_presence"):
        return segmenter.segment_with_presence(images, prompts)
    return [Found(masks) for masks in segmenter.segment(images, prompts)]


def prompt_types(segmenter: Any) -> tuple[type, ...]:
    """The kinds of prompt that a segmenter, or its class, takes; empty where its method's annotations say nothing."""
    kind = segmenter if isinstance(segmenter, type) else type(segmenter)
    try:
        inner = get_type_hints(kind.segment).get("prompts")
    except (AttributeError, NameError, TypeError):  # annotations that cannot be read say nothing
        return ()
    for _ in range(2):  # Sequence[Sequence[...]]
        inner = next(iter(get_args(inner)), None)
    kinds = (inner,) if isinstance(inner, type) and get_origin(inner) is None else get_args(inner)
    return tuple(kind for kind in kinds if isinstance(kind, type))


def fits(segmenter: Any, wanted: type | None) -> bool:
    """Whether a segmenter, or its class, takes a kind of prompt, as far as its annotations tell; none is always taken."""
    kinds = prompt_types(segmenter)
    return wanted is None or not kinds or any(issubclass(wanted, kind) for kind in kinds)


def require_fit(segmenter: Any, wanted: type | None, task: str) -> None:
    """Check that a segmenter takes the prompts of a task.

    Args:
        segmenter: Any, or its class.
        wanted: The kind of the task's prompts, or None where it asks no segmenter.
        task: Its name, for the error.

    Raises:
        ValueError: It takes others.
    """
    if wanted is not None and not fits(segmenter, wanted):
        name = (segmenter if isinstance(segmenter, type) else type(segmenter)).__name__
        taken = " and ".join(kind.__name__ for kind in prompt_types(segmenter))
        raise ValueError(
            f"the task {task} asks by {wanted.__name__} and the segmenter {name} takes {taken}: give one that fits as "
            "model.segmenter, or as --segmenter of a command; SAM2Prompt takes VisualPrompt, EVFSAM2 and SAM3 take str"
        )
