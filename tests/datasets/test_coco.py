import json

import numpy as np
import pytest

from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.segmentations import draw
from lightning_sal.datasets.sis import LAYOUT


def run_lengths(mask: np.ndarray) -> list[int]:
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = bool(pixel)
        runs[-1] += 1
    return runs


def as_string(runs: list[int]) -> str:
    """COCO's own writer (rleToString of its maskApi.c), followed step by step."""
    text = ""
    for i, run in enumerate(runs):
        x = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            c, x = x & 0x1F, x >> 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_as_list_and_as_string(seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((6, 7)) > 0.5, np.ones((9, 11), bool))
    for counts in (run_lengths(mask), as_string(run_lengths(mask))):
        assert np.array_equal(draw({"size": [54, 77], "counts": counts}, (54, 77)), mask)


def test_polygons_cover_the_pixels_whose_centres_they_hold():
    mask = draw([[2, 1, 6, 1, 6, 4, 2, 4], [9.4, 6.4, 10.6, 6.4, 10.6, 7.6, 9.4, 7.6]], (9, 12))
    expected = np.zeros((9, 12), bool)
    expected[1:4, 2:6] = expected[6:8, 9:11] = True
    assert np.array_equal(mask, expected)


def test_a_disc_has_the_area_of_a_disc():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    points = np.stack([50 + 30.3 * np.cos(angle), 45 + 30.3 * np.sin(angle)], axis=1)
    assert draw([points.ravel().tolist()], (100, 100)).sum() == pytest.approx(np.pi * 30.3**2, rel=0.005)


def test_a_polygon_beyond_the_edge_is_clipped():
    assert draw([[-5, -5, 40, -5, 40, 40, -5, 40]], (9, 12)).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3]],
        [[1, 1, 5, 5]],
        [["a", "b", "c", "d", "e", "f"]],
        [[0, 0, float("nan"), 5, 5, 5]],
        {"size": [9, 12], "counts": [5, 5]},
        {"size": [12, 9], "counts": [108]},
        {"size": [9, 12], "counts": "\x01\x02"},
        {"size": [9, 12], "counts": [200, -92]},
        {"counts": [108]},
        None,
        [],
    ],
)
def test_a_malformed_segmentation_is_named(save, tmp_path, segmentation):
    save("images/a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "height": 9, "width": 12}
    annotation = {"id": 77, "image_id": 1, "segmentation": segmentation}
    (tmp_path / "all.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    record = LAYOUT.records(tmp_path)[0]
    with pytest.raises(UnreadableSample, match="annotation 77") as error:
        record.read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"annotations": [,', r"all\.json:1: not JSON"),
        ('{"annotations": []}', "images"),
        ('{"images": 3, "annotations": 4}', "not COCO"),
    ],
)
def test_a_malformed_json_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "all.json").write_text(content)
    with pytest.raises(ValueError, match=reason) as error:
        LAYOUT.records(tmp_path)
    assert "\n" not in str(error.value)
