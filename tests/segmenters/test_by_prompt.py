"""Two segmenters as one, segmenters by name, and which prompts each takes."""

import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightning_sal.segmenters import EVFSAM2, SAM2Prompt, SegmenterByPrompt, VisualPrompt
from lightning_sal.segmenters.base import prompt_types, require_fit
from lightning_sal.segmenters.named import load_segmenter


class Marks:
    """Answers each prompt by a mask of a single pixel, which tells the prompt."""

    def __init__(self, row):
        self.row, self.asked = row, []

    def segment(self, images, prompts):
        self.asked.append([list(of_image) for of_image in prompts])
        found = []
        for image, of_image in zip(images, prompts, strict=True):
            masks = torch.zeros(len(of_image), *image.shape[:2], dtype=torch.bool)
            for mask, prompt in zip(masks, of_image, strict=True):
                mask[self.row, int(prompt) if isinstance(prompt, str) else int(prompt.box[0])] = True
            found.append(masks)
        return found


def box(x):
    return VisualPrompt(box=(x, 0, x + 1, 1))


def pixels(masks):
    """Row and column of the one pixel of each mask."""
    return [tuple(mask.nonzero()[0].tolist()) for mask in masks]


def test_masks_come_back_in_the_order_of_the_prompts():
    words, visual = Marks(0), Marks(1)
    images = [torch.zeros(2, size, 3, dtype=torch.uint8) for size in (5, 6, 7, 8)]
    prompts = [["3", box(1), "0", box(4)], [], [box(6)], ["2", "1"]]
    found = SegmenterByPrompt(words, visual).segment(images, prompts)
    assert [pixels(masks) for masks in found] == [[(0, 3), (1, 1), (0, 0), (1, 4)], [], [(1, 6)], [(0, 2), (0, 1)]]
    assert [masks.shape[1:] for masks in found] == [(2, 5), (2, 6), (2, 7), (2, 8)]
    assert all(masks.dtype == torch.bool for masks in found)
    assert words.asked == [[["3", "0"], [], [], ["2", "1"]]]  # once for all images
    assert visual.asked == [[[box(1), box(4)], [], [box(6)], []]]


def test_a_segmenter_without_prompts_of_its_kind_is_not_asked():
    words, visual = Marks(0), Marks(1)
    both = SegmenterByPrompt(words, visual)
    image = torch.zeros(2, 5, 3, dtype=torch.uint8)
    (found,) = both.segment([image], [["1"]])
    assert pixels(found) == [(0, 1)]
    assert visual.asked == []
    (none,) = both.segment([image], [[]])
    assert (none.shape, none.dtype) == ((0, 2, 5), torch.bool)
    with pytest.raises(ValueError, match="segment got 1 images and 2 lists of prompts: give one each"):
        both.segment([image], [[], []])


class Own:
    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        raise AssertionError


def test_the_prompts_that_a_segmenter_takes():
    assert prompt_types(EVFSAM2) == prompt_types(Own()) == (str,)
    assert prompt_types(SAM2Prompt) == (VisualPrompt,)
    assert prompt_types(SegmenterByPrompt(Own(), Own())) == (str, VisualPrompt)
    assert prompt_types(Marks(0)) == prompt_types(object()) == ()


def test_a_segmenter_that_does_not_fit_is_refused():
    require_fit(Own(), str, "sod")
    require_fit(Own(), None, "counting")  # asks none
    require_fit(Marks(0), VisualPrompt, "boxes")  # nothing is known of it
    require_fit(SegmenterByPrompt(Own(), Own()), VisualPrompt, "boxes")
    with pytest.raises(ValueError, match="the task boxes asks by VisualPrompt and the segmenter Own takes str"):
        require_fit(Own(), VisualPrompt, "boxes")
    with pytest.raises(ValueError, match="the task sod asks by str and the segmenter SAM2Prompt takes VisualPrompt"):
        require_fit(SAM2Prompt, str, "sod")


def test_a_segmenter_is_named_by_its_file(tmp_path):
    path = tmp_path / "own_segmenter.py"
    path.write_text("class Finder:\n    found = True\n\n\nNUMBER = 1\n")
    try:
        assert load_segmenter(f"{path}:Finder").found
        for name in ("NUMBER", "Absent"):
            with pytest.raises(ValueError, match=f"own_segmenter.py has no segmenter '{name}': name a class"):
                load_segmenter(f"{path}:{name}")
    finally:
        sys.modules.pop("own_segmenter", None)
    with pytest.raises(FileNotFoundError, match=r"absent.pt"):
        load_segmenter(str(tmp_path / "absent.pt"))
