"""What a segmenter offers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

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


def prompt_types(segmenter: Any) -> tuple[type, ...]:
    """The kinds of prompt that a segmenter takes, as its method's annotations say; empty where they say nothing."""
    try:
        inner = get_type_hints(type(segmenter).segment).get("prompts")
    except (AttributeError, NameError, TypeError):  # annotations that cannot be read say nothing
        return ()
    for _ in range(2):  # Sequence[Sequence[...]]
        inner = next(iter(get_args(inner)), None)
    kinds = (inner,) if isinstance(inner, type) and get_origin(inner) is None else get_args(inner)
    return tuple(kind for kind in kinds if isinstance(kind, type))


def require_fit(segmenter: Any, wanted: type | None, task: str) -> None:
    """Check that a segmenter takes the prompts of a task.

    Args:
        segmenter: Any.
        wanted: The kind of the task's prompts, or None where it asks no segmenter.
        task: Its name, for the error.

    Raises:
        ValueError: It takes others.
    """
    kinds = prompt_types(segmenter)
    if wanted is not None and kinds and not any(issubclass(wanted, kind) for kind in kinds):
        taken = " and ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"the task {task} asks by {wanted.__name__} and the segmenter {type(segmenter).__name__} takes {taken}: give "
            "model.segmenter one that fits, as lightning_sal.segmenters.SAM2Prompt for VisualPrompt"
        )
