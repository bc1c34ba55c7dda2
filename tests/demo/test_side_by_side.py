"""Answers side by side, and as files."""

import json
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.demo.side_by_side import Archive, stream
from lightning_sal.samples import ImageGroup
from tests.demo.parts import Says


def group(name="a.png", size=(4, 6)):
    return ImageGroup(name, "sod", (torch.full((*size, 3), 7, dtype=torch.uint8),), paths=(name,))


def test_models_answer_in_turns_and_the_predictions_come_last():
    steps = list(stream({"short": Says("a"), "long": Says("b", "b c", "b c d")}, group()))
    assert [texts for texts, _ in steps[:3]] == [
        {"short": "a", "long": "b"},
        {"short": "a", "long": "b c"},
        {"short": "a", "long": "b c d"},
    ]
    assert [found for _, found in steps[:-1]] == [None] * (len(steps) - 1)
    texts, found = steps[-1]
    assert texts == {"short": "a", "long": "b c d"}
    assert {name: prediction.text for name, prediction in found.items()} == texts
    assert list(found) == ["short", "long"]


@pytest.mark.parametrize("explained", [False, True])
def test_models_explain_when_they_are_told_to(explained):
    says = Says("a", "b")
    list(stream({"m": says}, group(), explained=explained))
    assert says.asked == ("", explained)


@pytest.mark.parametrize(
    ("models", "folders"), [(["tiny"], [""]), (["tiny", "runs/a b/last.ckpt"], ["1-tiny/", "2-runs_a_b_last.ckpt/"])]
)
def test_the_archive_holds_masks_and_lines_of_each_model(models, folders, tmp_path):
    archive = Archive(tmp_path, models)
    for image in (group(), group(size=(5, 8)), group("b.png")):  # two of one name
        *_, (_, found) = stream({name: Says(f"of {name}") for name in models}, image)
        archive.add(found)
    with ZipFile(archive.close()) as files:
        assert files.testzip() is None
        for name, folder in zip(models, folders, strict=True):
            lines = [json.loads(line) for line in files.read(f"{folder}predictions.jsonl").splitlines()]
            assert [line["images"] for line in lines] == [["a.png"], ["a.png"], ["b.png"]]
            assert [line["response"] for line in lines] == [f"of {name}"] * 3
            for line, (height, width) in zip(lines, [(4, 6), (5, 8), (4, 6)], strict=True):
                ((mask,),), (overlay,) = line["masks"], line["overlays"]
                with files.open(folder + mask) as file:
                    pixels = np.asarray(Image.open(file))
                assert (pixels == np.where(np.arange(width) < width // 2, 255, 0)[None].repeat(height, 0)).all()
                assert folder + overlay in files.namelist()
