"""COCO segmentations as masks, against scikit-image, COCO's own code and hand arithmetic; and what files may not do."""

import tracemalloc

import numpy as np
import pytest
import torch
from faster_coco_eval import mask as coco_mask
from skimage.draw import polygon

from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.segmentations import Segmentations, draw, fill
from tests.datasets.test_coco import as_string, run_lengths

TRIANGLE = [1, 1, 9, 1, 9, 8]
BOX = [2, 8, 18, 8, 18, 33, 2, 33]  # 16 x 25 pixels


def masks(*segmentations, frame=(48, 64), size=(48, 64), orientation=1, **options):
    drawings = [(f"f.json: annotation {number}", each) for number, each in enumerate(segmentations)]
    return Segmentations(drawings, frame, "f.json: image 1", **options)(size, orientation)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_those_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-12, 76, (rng.integers(3, 12), 2))
    mask, expected = np.zeros((48, 64), bool), np.zeros((48, 64), bool)
    fill(points, mask)
    expected[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, expected.shape)] = True
    assert np.array_equal(mask, expected)


def test_neighbours_share_no_pixel_and_leave_none():
    left, right = draw([[0, 0, 6.5, 0, 6.5, 9, 0, 9]], (9, 12)), draw([[6.5, 0, 12, 0, 12, 9, 6.5, 9]], (9, 12))
    assert (left ^ right).all()


def test_polygons_of_a_point_or_two_are_passed_over():
    assert masks([BOX, [32.0, 24.0], [40, 2, 50, 9], []]).sum() == 16 * 25


@pytest.mark.parametrize(
    "spelt", [[TRIANGLE], TRIANGLE, [[1, 1], [9, 1], [9, 8]], [[[1, 1], [9, 1], [9, 8]]], [[1.0, 1, 9, 1, 9, 8]]]
)
def test_a_polygon_in_every_spelling(spelt):
    assert np.array_equal(draw(spelt, (9, 12)), draw([[1, 1, 9, 1, 9, 8]], (9, 12)))


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([BOX, [1, 2, 3, 4, 5, 6, 7]], "7 numbers"),
        ([[32.0, 24.0]], "no polygon of 3 points"),
        ([], "an empty one, where .* a box alone is no mask"),
        (None, "none, where polygons or run lengths must stand"),
        ("polygon", "'polygon', where"),
        ([[1, 1, 5, 1, 5, float("nan")]], "coordinate"),
        ([[1, 1, 5, 1, 5, 1e300]], "coordinate"),
        ([["1", "1", "5", "1", "5", "5"]], "other things than numbers"),
        ([{}, [1, 1, 5, 1, 5, 5]], "other things than numbers"),
        ([[True, 1, 5, 1, 5, 5]], "other things than numbers"),
        ({"size": [48, 64], "counts": [100, 30]}, "130 pixels in the run lengths of 64 x 48 = 3072"),
        ({"size": [48, 64], "counts": [3071, -1, 2]}, "3072 pixels"),
        ({"size": [64, 48], "counts": [3072]}, "48 x 64 pixels on an image of 64 x 48"),
        ({"size": [48], "counts": [3072]}, r"size \[48\]"),
        ({"size": [48, 64]}, "no list of whole numbers: None"),
        ({"size": [48, 64], "counts": [0.5, 3071.5]}, "no list of whole numbers"),
        ({"size": [48, 64], "counts": [10**30]}, "no list of whole numbers"),
        ({"size": [48, 64], "counts": [1] * 10**6}, "1000000 run lengths, more than"),
        ({"size": [48, 64], "counts": ""}, "cut off"),
        ({"size": [48, 64], "counts": "o" * 10**6}, "cut off"),
        ({"size": [48, 64], "counts": "o" * 10**6 + "0"}, "beyond any size"),
        ({"size": [48, 64], "counts": "1" * 10**6}, "pixels in the run lengths"),
        ({"size": [48, 64], "counts": "é"}, "characters"),
        ({"size": [48, 64], "counts": "\ud800"}, "characters"),
    ],
)
@pytest.mark.parametrize("size", [(48, 64), None])
def test_what_is_no_segmentation_is_named_in_one_line(segmentation, reason, size):
    with pytest.raises(UnreadableSample, match=reason) as error:
        masks(segmentation, size=size)
    assert str(error.value).startswith("f.json: annotation 0: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("size", [(48, 64), (64, 64), None])
@pytest.mark.parametrize("side", [60_000, 10**9])
@pytest.mark.parametrize("kind", ["polygon", "run lengths", "nothing"])
def test_no_size_that_a_file_states_takes_memory(size, side, kind):
    drawn = {"polygon": [[BOX]], "run lengths": [{"size": [side, side], "counts": [side**2]}], "nothing": []}[kind]
    tracemalloc.start()
    try:
        if size is None:
            assert masks(*drawn, frame=(side, side), size=None).numel() == 0
        else:
            with pytest.raises(UnreadableSample, match=f"f.json: image 1: {side} x {side} pixels"):
                masks(*drawn, frame=(side, side), size=size)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_more_instances_than_fit_in_memory_are_refused_by_their_number():
    with pytest.raises(UnreadableSample, match=r"f\.json: image 1: 200 instances on 4000 x 3000 pixels are too many"):
        masks(*[[BOX]] * 200, frame=None, size=(3000, 4000))


@pytest.mark.parametrize("size", [(27, 36), (96, 128), (48, 64)])
@pytest.mark.parametrize("as_text", [True, False])
def test_run_lengths_at_the_size_of_the_photograph(size, as_text):
    """Nearest neighbour of the mask that COCO's own code decodes."""
    mask = np.kron(np.random.default_rng(0).random((6, 8)) > 0.5, np.ones((8, 8), bool))
    runs = run_lengths(mask)
    assert coco_mask.decode({"size": [48, 64], "counts": as_string(runs)}).astype(bool).tolist() == mask.tolist()
    found = masks({"size": [48, 64], "counts": as_string(runs) if as_text else runs}, size=size)[0]
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (48, 64), strict=True))
    assert np.array_equal(found.numpy(), mask[rows[:, None], columns])


@pytest.mark.parametrize("orientation", [1, 6])
def test_polygons_are_scaled_and_turned_with_their_frame(orientation):
    """The left upper quarter of the frame; after a turn to the right it is the right upper one."""
    size, frame = ((30, 40), (60, 80)) if orientation == 1 else ((40, 30), (60, 80))
    found = masks([[0, 0, 40, 0, 40, 30, 0, 30]], frame=frame, size=size, orientation=orientation)[0]
    expected = torch.zeros(size, dtype=torch.bool)
    expected[: size[0] // 2, slice(0, 20) if orientation == 1 else slice(15, 30)] = True
    assert torch.equal(found, expected)


def test_an_answer_may_cover_no_pixel_and_a_ground_truth_may_not():
    speck = [[0.6, 0.6, 0.9, 0.6, 0.9, 0.9]]
    assert not masks(speck, predicted=True).any()
    with pytest.raises(UnreadableSample, match="annotation 0: covers no pixel"):
        masks(speck)
