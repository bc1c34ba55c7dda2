"""`test` on perception tasks: from a policy's words, or the annotation, to the numbers and the files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_sal.callbacks import EvaluationResults
from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.evaluation.results import read_images, read_summary
from lightning_sal.evaluation.tables import difference_lines, markdown
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.samplers import Annotated
from lightning_sal.samples import ImageGroup, VisualPrompt
from tests.modules.parts import sft, trainer

SIZE = (60, 100)


class FillBoxes:
    """The mask of a prompt is all of its box."""

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[VisualPrompt]]) -> list[Tensor]:
        masks = []
        for image, asked in zip(images, prompts, strict=True):
            found = torch.zeros(len(asked), *image.shape[:2], dtype=torch.bool)
            for mask, prompt in zip(found, asked, strict=True):
                x0, y0, x1, y1 = (max(round(value), 0) for value in prompt.box)
                mask[y0:y1, x0:x1] = True
            masks.append(found)
        return masks


def group(task: str, number: int, *corners: tuple[int, ...]) -> ImageGroup:
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    for x0, y0, x1, y1 in corners:
        mask[:, y0:y1, x0:x1] = True
    image = torch.full((*SIZE, 3), 40 * number, dtype=torch.uint8)
    boxes = torch.tensor(corners, dtype=torch.float32).view(-1, 4)
    return ImageGroup(
        f"{task}/{number}",
        task,
        (image,),
        (mask,),
        boxes=(boxes,),
        paths=(f"{number}.jpg",),
        question=f"thing {number}",
    )


CORNERS = ([(10, 10, 40, 30)], [(0, 0, 20, 20), (50, 20, 100, 60)], [], [(5, 6, 55, 56)], [(70, 1, 90, 31)])
GROUPS = [
    group(task, n, *corners) for n, corners in enumerate(CORNERS) for task in ("perception", "detection", "counting")
]


class Groups(ImageGroupsDataModule):
    """Some image groups, to be evaluated."""

    def evaluation_dataset(self, split: str):
        return GROUPS


def run(tmp_path: Path, batch_size: int = 4, **options) -> tuple[dict[str, float], Path]:
    """What `test` logs, and where it writes."""
    out = tmp_path / f"out-{len(list(tmp_path.glob('out*')))}"
    module = sft(**{"segmenter": FillBoxes(), **options})
    callback = EvaluationResults(out, "tiny")
    (values,) = trainer(tmp_path, callbacks=[callback]).test(module, Groups(batch_size=batch_size), verbose=False)
    return dict(values), out


def test_the_annotation_reaches_all_that_the_frame_allows(tmp_path: Path) -> None:
    squared = PolicyConfig("tiny-scratch", square=112)
    for policy, least in ((PolicyConfig("tiny-scratch"), 0.9), (squared, 0.9)):
        values, out = run(tmp_path, policy=policy, evaluation_sampler=Annotated())
        for name in ("perception/giou", "perception/ciou"):
            assert least < values[f"test/{name}"] <= 1
        for name in ("detection/f1", "detection/ap50", "perception/recall", "counting/count_accuracy"):
            assert values[f"test/{name}"] == pytest.approx(1)
        for name in ("no_target_accuracy", "target_accuracy"):
            assert values[f"test/detection/{name}"] == 1
        assert values["test/detection/unreadable"] == values["test/detection/malformed"] == 0
        assert read_summary(out).settings["detection"] == {
            "sampler": "Annotated",
            "temperature": 0.0,
            "max_new_tokens": 8,
            "reading": "strict",
            "segmenter": "FillBoxes",
        }


def test_rows_name_what_a_sample_is_not_measured_by(tmp_path: Path) -> None:
    _, first = run(tmp_path, evaluation_sampler=Annotated())
    rows = read_images(first, "perception")
    assert [row["no_target_accuracy"] for row in rows] == ["", "", "1.0", "", ""]
    assert [row["target_accuracy"] for row in rows] == ["1.0", "1.0", "", "1.0", "1.0"]
    assert "| tiny |" in markdown([read_summary(first)])
    _, second = run(tmp_path)
    lines = difference_lines(first, second)
    assert any("perception target_accuracy: tiny - tiny = +1.0000" in line and "4 images" in line for line in lines)
    assert any("perception no_target_accuracy" in line and "1 images" in line for line in lines)


def test_an_untrained_policy_is_unreadable_and_right_nowhere(tmp_path: Path) -> None:
    values, out = run(tmp_path)
    for task, name in (("perception", "giou"), ("detection", "f1"), ("counting", "count_accuracy")):
        assert values[f"test/{task}/unreadable"] == values[f"test/{task}/malformed"] == 1
        assert values[f"test/{task}/{name}"] == values[f"test/{task}/no_target_accuracy"] == 0
    assert values["test/perception/ciou"] == 0
    assert values["test/counting/count_error"] == 5 / 5
    assert (out / "failures.html").is_file()
    assert not any(math.isnan(value) for value in values.values())


def responses(temperature: float, seed: int, sizes: Sequence[int]) -> list[str]:
    """What is answered to the same samples in batches of some sizes."""
    module = sft(segmenter=FillBoxes(), evaluation_temperature=temperature, seed=seed)
    module.configure_model()
    rest = iter(GROUPS[:6])
    return [each.text for size in sizes for each in module.respond([next(rest) for _ in range(size)])]


def test_what_is_drawn_depends_on_seed_and_sample_alone() -> None:
    sampled = responses(1.0, 0, (6,))
    assert sampled == responses(1.0, 0, (1, 3, 2))
    assert sampled != responses(1.0, 1, (6,))
    assert sampled != responses(0.0, 0, (6,))
    assert responses(0.0, 0, (6,)) == responses(0.0, 1, (2, 4))
    assert len(set(sampled)) > 1


def test_the_summary_states_temperature_and_seed(tmp_path: Path) -> None:
    _, out = run(tmp_path, evaluation_temperature=0.8, seed=3)
    expected = {"sampler": "PolicySampler", "temperature": 0.8, "max_new_tokens": 8, "seed": 3}
    expected |= {"reading": "strict", "segmenter": "FillBoxes"}
    assert read_summary(out).settings == dict.fromkeys(("perception", "detection", "counting"), expected)
    with pytest.raises(ValueError, match="evaluation_temperature -1 must be 0 or above"):
        sft(evaluation_temperature=-1)


def test_a_sample_without_an_annotated_answer_is_named(tmp_path: Path) -> None:
    module = sft(segmenter=FillBoxes(), evaluation_sampler=Annotated())
    module.configure_model()
    bare = ImageGroup("s", "vqa", (torch.zeros(*SIZE, 3, dtype=torch.uint8),), question="why?", reference="so")
    with pytest.raises(
        ValueError, match="s: Annotated answers by the true response and this sample has none; give one"
    ):
        module.respond([bare])
