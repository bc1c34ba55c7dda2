import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.annotation.requests import build, picture, shown_images, text_of
from lightning_sal.annotation.samples import list_samples
from lightning_sal.annotation.wording import Wording
from lightning_sal.pages.outlines import DIM, colour
from lightning_sal.tasks import TASKS, TagRegions, register
from tests.annotation.parts import write_cosod, write_sis, write_sod
from tests.annotation.server import LEVELS, image_number


def request(task: str, data, side: int = 768, wording: Wording | None = None, at: int = 0):
    sample = list_samples(task, data, data, split=None, group_size=8)[at]
    return build(sample, sample.record.read(), wording or Wording.read(task), side)


def pixels(jpeg: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return np.asarray(image).astype(int)


def test_a_photograph_is_followed_by_itself_with_all_but_the_region_darker(tmp_path):
    shown = request("sod", write_sod(tmp_path, 3), at=2)
    plain, hinted = map(pixels, shown.images)
    assert abs(plain[5, 5] - 2 * LEVELS).max() < 4
    assert abs(plain[30, 40] - (250, 200, 30)).max() < 12
    assert abs(hinted[5, 5] - DIM * 2 * LEVELS).max() < 4
    assert abs(hinted[30, 40] - (250, 200, 30)).max() < 12
    assert len(shown.turns) == 1
    assert "twice" in shown.turns[0]
    assert "$" not in shown.turns[0]


def test_instances_are_outlined_in_colours_of_their_own(tmp_path):
    shown = request("sis", write_sis(tmp_path, [3]))
    hinted = pixels(shown.images[1]).reshape(-1, 3)
    for i in range(3):
        assert abs(hinted - colour(i)).max(-1).min() < 60
    assert "with 3 objects" in shown.turns[0]


def test_a_group_is_shown_with_its_category_and_what_does_not_show_it(tmp_path):
    shown = request("cosod", write_cosod(tmp_path, {"alarm_clock": [1, 2, 3]}, empty=(2,)))
    assert [image_number(image) for image in shown.images] == [1, 2, 3]
    assert "image1 to image3" in shown.turns[0]
    assert '"alarm clock"' in shown.turns[0]
    assert "It does not occur in image2." in shown.turns[0]
    assert "does not occur" not in request("cosod", write_cosod(tmp_path / "b", {"a": [1, 2]})).turns[0]


@pytest.mark.parametrize(
    ("task", "write", "reason"),
    [
        ("sis", lambda root: write_sis(root, [0]), "no ground truth"),
        ("cosod", lambda root: write_cosod(root, {"a": [1, 2]}, empty=(1, 2)), "no ground truth"),
        ("cosod", lambda root: write_cosod(root, {"a": [1]}), "no group"),
    ],
)
def test_where_nothing_is_to_be_explained_nothing_is_asked(tmp_path, task, write, reason):
    with pytest.raises(ValueError, match=f"^{reason}: "):
        request(task, write(tmp_path))


def test_images_are_bounded_in_size_and_keep_their_shape():
    image = torch.zeros(200, 400, 3, dtype=torch.uint8)
    assert pixels(picture(image, 100)).shape == (50, 100, 3)
    assert pixels(picture(image, 100, torch.ones(1, 200, 400, dtype=torch.bool))).shape == (50, 100, 3)
    assert pixels(picture(image, 1000)).shape == (200, 400, 3)


def test_as_many_images_are_counted_as_are_shown(tmp_path):
    assert len(request("sod", write_sod(tmp_path / "a", 1)).images) == shown_images(TASKS["sod"], 1)
    assert len(request("cosod", write_cosod(tmp_path / "b", {"a": [1, 2, 3]})).images) == shown_images(
        TASKS["cosod"], 3
    )


def test_a_correction_follows_the_answer(tmp_path):
    first = request("sod", write_sod(tmp_path, 1))
    assert first.corrected("so", "no").turns == (first.turns[0], "so", "no")
    assert first.corrected("", "no").turns[1]  # an empty turn is refused by servers


def test_prompts_are_files_that_a_user_replaces(tmp_path):
    data, own = write_sod(tmp_path / "data", 1), tmp_path / "own"
    own.mkdir()
    (own / "sod.md").write_text("What of $category, $5?\n## One\n##  Two parts \n")
    wording = Wording.read("sod", own)
    assert wording.titles == ("One", "Two parts")
    assert request("sod", data, wording=wording).turns[0].startswith("What of 0, $5?")
    packaged = Wording.read("sod")
    assert wording.forbidden == packaged.forbidden
    assert Wording.read("sis", own).question.template == Wording.read("sis").question.template
    with pytest.raises(FileNotFoundError, match=r"holds none of sod\.md"):
        Wording.read("sod", data)


class Seen(TagRegions):
    """A task without masks."""

    needs = frozenset({"reference"})
    masks_per_image = 0


def test_a_task_of_ones_own_is_asked_in_the_words_of_a_folder_of_ones_own(tmp_path):
    register(Seen(name="seen", title="t", instruction="i", tag="rg"))
    write_sod(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match=r"no question for the task seen: write seen\.md"):
        Wording.read("seen")
    (tmp_path / "seen.md").write_text("$question It is $reference, at $boxes.")
    lines = [
        {"task": "seen", "images": ["images/0.png"], "question": q, "reference": "2", "boxes": [[[1, 2, 3, 4]]]}
        for q in ("How many?", "How far?")
    ]
    data = tmp_path / "seen.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in (*lines, {"task": "seen", "images": ["images/1.png"]})))
    listed = list_samples("seen", data, tmp_path, split=None, group_size=8)
    assert [sample.fields for sample in listed[:2]] == lines
    assert len({sample.key for sample in listed}) == 3
    wording = Wording.read("seen", tmp_path)
    shown = build(listed[0], listed[0].record.read(), wording, 768)
    assert shown.turns == ("How many? It is 2, at [[[1.0, 2.0, 3.0, 4.0]]].",)
    assert len(shown.images) == shown_images(TASKS["seen"], 1) == 1
    with pytest.raises(ValueError, match=r"^no ground truth: .* needs reference"):
        build(listed[2], listed[2].record.read(), wording, 768)


@pytest.mark.parametrize(
    ("task", "titles"),
    [
        ("sod", ("Scene Description", "Salient Area Identification and Explanation", "Final Conclusion")),
        ("sis", ("Scene Description", "Identify Salient Instances", "Final Conclusion")),
        ("cosod", ("Object Identification", "Co-salience Deduction", "Final Conclusion")),
    ],
)
def test_the_packaged_questions_ask_for_three_titled_steps(task, titles):
    assert Wording.read(task).titles == titles


def test_every_placeholder_is_filled(tmp_path):
    for task, data in (("sod", write_sod(tmp_path / "a", 1)), ("cosod", write_cosod(tmp_path / "b", {"a": [1, 2]}))):
        (sample,) = list_samples(task, data, data, split=None, group_size=8)
        assert "$" not in text_of(sample, Wording.read(task), {"instances": 2, "noise": ""})
