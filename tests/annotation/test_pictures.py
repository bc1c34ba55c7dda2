"""Only answers are kept whose masks are the right ones."""

import pytest
import torch

from lightning_sal.annotation.pictures import PictureCheck
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.tiny import embedded_evf_sam2


class Halves:
    """Finds the left or the right half of an image, or nothing."""

    def segment(self, images, prompts):
        found = []
        for image, said in zip(images, prompts, strict=True):
            masks = torch.zeros(len(said), *image.shape[:2], dtype=torch.bool)
            for mask, expression in zip(masks, said, strict=True):
                middle = image.shape[1] // 2
                mask[:, :middle] |= "left" in expression
                mask[:, middle:] |= "right" in expression
            found.append(masks)
        return found


def group(task: str, images: int = 1) -> ImageGroup:
    """The left half is salient; for instances both halves are."""
    pixels = torch.zeros(20, 40, 3, dtype=torch.uint8)
    left = torch.arange(40).expand(20, 40) < 20
    truth = torch.stack([left, ~left]) if task == "sis" else left[None]
    return ImageGroup("g", task, (pixels,) * images, (truth,) * images)


def said(tag: str, *expressions: str) -> str:
    return f"<think>x</think><answer>{''.join(f'<{tag}>{e}</{tag}>' for e in expressions)}</answer>"


@pytest.mark.parametrize(
    ("task", "images", "response", "fault"),
    [
        ("sod", 1, said("rg", "left"), None),
        ("sod", 1, said("rg", "right"), "pictures: S 0"),
        ("sod", 1, said("rg", "nothing"), "pictures: S 0"),
        ("cosod", 2, said("rg", "[semantic] left"), None),
        ("cosod", 2, said("rg", "[semantic] right"), "pictures: S 0"),
        ("sis", 1, said("ins", "right", "left"), None),
        ("sis", 1, said("ins", "left", "nothing"), "pictures: matched S 0"),
    ],
)
def test_a_response_is_kept_where_its_masks_are_right(task, images, response, fault):
    found = PictureCheck(Halves(), 0.95).fault(group(task, images), response)
    assert (found is None) == (fault is None)
    assert (found or "").startswith(fault or "")
    assert found is None or found.endswith(" below 0.95")


def test_a_real_segmenter_keeps_what_describes_a_scene_and_drops_what_does_not():
    check = PictureCheck(embedded_evf_sam2(), 0.8)
    scenes = [SceneGroups(0, {"sod": 1}, size=8)[i] for i in range(8)]
    right = sum(check.fault(scene, scene.response) is None for scene in scenes)
    others = [scenes[(i + 1) % 8].response for i in range(8)]
    wrong = sum(check.fault(scene, other) is None for scene, other in zip(scenes, others, strict=True))
    assert right >= 7
    assert wrong <= 2
