"""Ground truths and predictions are brought together by name, and what does not fit is named before anything is read."""

import logging
import multiprocessing
import pickle
import random
import shutil
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.pixels import cut
from lightning_sal.predictions.pairing import pair_maps, pair_up
from lightning_sal.tasks import COSOD, SIS, SOD

MASK = np.zeros((9, 12), np.uint8)
MASK[2:5, 3:9] = 255
SOFT = np.arange(108, dtype=np.uint8).reshape(9, 12) * 2


@pytest.fixture
def benchmark(save, tmp_path):
    """A benchmark with photographs a and b, and maps of them."""
    for name in "ab":
        save(f"data/images/{name}.jpg")
        save(f"data/masks/{name}.png", MASK)
        save(f"maps/{name}.png", SOFT)
    return tmp_path / "data"


def pairs_of(preds, truth, task=SOD, **options):
    return pair_maps(preds, truth, task, "x", **options)


def test_levels_are_those_of_the_files(benchmark, tmp_path):
    found = pairs_of(tmp_path / "maps", benchmark)
    assert [(pair.name, pair.group, pair.photograph) for pair in found.pairs] == [
        (name, "", benchmark / "images" / f"{name}.jpg") for name in "ab"
    ]
    assert (found.missing, found.extra, found.notes) == ([], [], [])
    assert found.pairs[0].files == {"truth": f"{benchmark}/masks/a.png", "prediction": f"{tmp_path}/maps/a.png"}
    for pair in found.pairs:
        truth, top = pair.truth_levels()
        assert np.array_equal(truth, MASK)
        assert top == 255
        levels, top, resized = pair.map_levels((9, 12))
        assert np.array_equal(levels, SOFT)
        assert levels.dtype == np.uint8
        assert (top, resized) == (255, False)


def test_masks_may_lie_alone(benchmark, tmp_path):
    shutil.copytree(benchmark / "masks", tmp_path / "alone")
    found = pairs_of(tmp_path / "maps", tmp_path / "alone")
    assert [(pair.name, pair.photograph) for pair in found.pairs] == [("a", None), ("b", None)]
    assert np.array_equal(found.pairs[0].truth_levels()[0], MASK)


def test_the_masks_of_a_benchmark_name_it_with_its_photographs(benchmark, tmp_path):
    found = pairs_of(tmp_path / "maps", benchmark / "masks")
    assert [pair.photograph for pair in found.pairs] == [benchmark / "images" / f"{name}.jpg" for name in "ab"]


@pytest.mark.parametrize("alone", [False, True])
def test_masks_of_groups_lie_in_a_folder_each(save, tmp_path, alone):
    for group in ("cat", "dog"):
        for name in "ab":
            save(f"data/gt/{group}/{name}.png", MASK)
            save(f"maps/{group}/{name}_sal.png", SOFT)
            if not alone:
                save(f"data/image/{group}/{name}.jpg")
    found = pairs_of(tmp_path / "maps", tmp_path / "data" / ("gt" if alone else ""), COSOD)
    assert [(pair.name, pair.group) for pair in found.pairs] == [
        (f"{group}/{name}", group) for group in ("cat", "dog") for name in "ab"
    ]
    assert [pair.photograph is None for pair in found.pairs] == [alone] * 4
    assert found.notes == ["predictions have '_sal' at the end of the names of images: taken off"]


def test_colours_of_instances_may_lie_alone(save, tmp_path):
    codes = np.zeros((9, 12, 3), np.uint8)
    codes[:4, :5], codes[6:, 7:] = (255, 0, 0), (0, 255, 0)
    for folder in ("gt", "m"):
        save(f"{folder}/a.png", codes)
    found = pair_up(tmp_path / "m", tmp_path / "gt", SIS, "x")
    image, truth = found.truths["a"].image.read()
    assert image.shape == (9, 12, 3)
    assert np.array_equal(truth, found.readers["a"]((9, 12))[0])
    assert sorted(truth.sum((1, 2)).tolist()) == [15, 20]


@pytest.mark.parametrize(
    ("names", "truths", "note"),
    [
        (["a_sal", "b_sal"], ["a", "b"], "predictions have '_sal' at the end"),
        (["DSS-a", "DSS-b"], ["a", "b"], "predictions have 'DSS-' at the beginning"),
        (["a", "b"], ["a_gt", "b_gt"], "images have '_gt' at the end"),
    ],
)
def test_one_text_that_all_names_have_is_taken_off(save, tmp_path, names, truths, note):
    for number, (name, truth) in enumerate(zip(names, truths, strict=True)):
        save(f"m/{name}.png", SOFT + number)
        save(f"gt/{truth}.png", MASK)
    found = pairs_of(tmp_path / "m", tmp_path / "gt")
    assert [pair.name for pair in found.pairs] == truths
    assert [int(pair.map_levels((9, 12))[0][0, 0]) for pair in found.pairs] == [0, 1]
    assert len(found.notes) == 1
    assert found.notes[0].startswith(note)


def test_names_that_differ_otherwise_are_named(save, tmp_path):
    for name in ("a_sal", "b_pred"):
        save(f"m/{name}.png", SOFT)
    for name in "ab":
        save(f"gt/{name}.png", MASK)
    with pytest.raises(
        ValueError, match=r"2 images without prediction \(a, b\) and 2 .* without image \(a_sal, b_pred\)"
    ):
        pairs_of(tmp_path / "m", tmp_path / "gt")
    with pytest.raises(ValueError, match=r"no image of .*gt has a prediction of its name"):
        pairs_of(tmp_path / "m", tmp_path / "gt", skip_missing=True)


@pytest.mark.parametrize("pair", [pair_maps, pair_up])
def test_what_is_missing_is_left_out_where_one_insists(benchmark, save, tmp_path, pair):
    (tmp_path / "maps/b.png").rename(tmp_path / "maps/c.png")
    with pytest.raises(ValueError, match=r"1 images without prediction \(b\) and 1 predictions without image \(c\)"):
        pair(tmp_path / "maps", benchmark, SOD, "x")
    found = pair(tmp_path / "maps", benchmark, SOD, "x", skip_missing=True)
    assert (found.missing, found.extra) == (["b"], ["c"])
    assert found.notes == ["1 images without prediction (b): left out", "1 predictions without image (c): left out"]


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp"])
def test_two_masks_of_one_image_are_refused(benchmark, save, tmp_path, name):
    for file in "ab":
        save(f"alone/{file}.png", MASK)
    save(f"alone/{name}", MASK)
    save("alone/c.png", MASK)
    with pytest.raises(ValueError, match=r"alone: .*/a\.\w+ and .*/a\.\w+ share the name 'a': keep one"):
        pairs_of(tmp_path / "maps", tmp_path / "alone")
    save("data/masks/a.bmp", MASK)
    with pytest.raises(UnreadableSample, match=r"a\.jpg: several files of one stem: .*a\.bmp, .*a\.png"):
        pairs_of(tmp_path / "maps", benchmark)


def test_two_folders_of_masks_are_named_and_one_is_chosen_by_its_name(benchmark, save, tmp_path):
    for name in "ab":
        save(f"data/gt/{name}.png", SOFT)
    with pytest.raises(ValueError, match=r"2 of the datasets found here fit \(gt, masks\); name one of them"):
        pairs_of(tmp_path / "maps", benchmark)
    found = pairs_of(tmp_path / "maps", benchmark / "gt")
    assert np.array_equal(found.pairs[0].truth_levels()[0], SOFT)


def test_photographs_and_masks_of_one_folder_are_no_two_masks(save, tmp_path):
    for name in "ab":
        save(f"data/{name}.jpg")
        save(f"data/{name}.png", MASK)
        save(f"maps/{name}.png", SOFT)
    found = pairs_of(tmp_path / "maps", tmp_path / "data")
    assert [pair.photograph.name for pair in found.pairs] == ["a.jpg", "b.jpg"]


def test_an_image_without_mask_is_named_at_once(benchmark, save, tmp_path):
    for name in "cd":
        save(f"data/images/{name}.jpg")
        save(f"maps/{name}.png", SOFT)
    with pytest.raises(UnreadableSample, match=r"c\.jpg: an image without a mask; and 1 more"):
        pairs_of(tmp_path / "maps", benchmark)


def test_a_map_of_another_size_is_resized_between_its_pixels_or_refused(benchmark, save, tmp_path):
    save("maps/a.png", np.array([[0, 255]], np.uint8))
    first, second = pairs_of(tmp_path / "maps", benchmark).pairs
    levels, top, resized = first.map_levels((1, 4))
    assert levels.tolist() == [[0, 63.75, 191.25, 255]]  # centres at 1/8, 3/8, ...: a quarter and three of the way
    assert (levels.dtype, top, resized) == (np.float64, 255, True)
    assert second.map_levels((9, 12))[2] is False
    first, _ = pairs_of(tmp_path / "maps", benchmark, resize="refuse").pairs
    with pytest.raises(UnreadableSample, match=r"map of a has 2 x 1 pixels, and its ground truth 12 x 9"):
        first.map_levels((9, 12))


def test_a_truth_keeps_its_greys_in_the_frame_of_a_turned_photograph(save, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save("data/images/a.jpg", None, exif=exif)
    save("data/masks/a.png", SOFT)  # drawn before the turn
    save("maps/a.png", SOFT.T)
    (pair,) = pairs_of(tmp_path / "maps", tmp_path / "data").pairs
    truth, top = pair.truth_levels()
    assert np.array_equal(truth, np.rot90(SOFT, 3))
    assert (truth.dtype, top) == (np.uint8, 255)
    assert np.array_equal(cut(truth, top), np.rot90(SOFT, 3) > 128)


def test_maps_of_other_kinds_are_read_beside_each_other(benchmark, save, tmp_path):
    shutil.rmtree(tmp_path / "maps")
    save("maps/a.tif", SOFT.astype(np.float32) / 255)
    np.save(tmp_path / "maps/b.npy", SOFT.astype(np.uint16) * 257)
    first, second = pairs_of(tmp_path / "maps", benchmark).pairs
    assert [pair.map_levels((9, 12))[1] for pair in (first, second)] == [1, 65535]
    for pair in (first, second):
        levels, top, _ = pair.map_levels((9, 12))
        assert levels / top == pytest.approx(SOFT / 255)


def test_the_range_of_a_folder_holds_for_arrays_too(benchmark, tmp_path, caplog):
    shutil.rmtree(tmp_path / "maps")
    (tmp_path / "maps").mkdir()
    for name in "ab":
        np.savez(tmp_path / f"maps/{name}.npz", map=SOFT.astype(np.float64))
    first, _ = pairs_of(tmp_path / "maps", benchmark).pairs
    assert first.map_levels((9, 12))[1] == 255
    assert "2 maps of floats hold nothing above 214: read as 0 to 255" in caplog.text


def test_maps_of_one_bit_are_in_no_other_range_than_theirs(benchmark, save, tmp_path):
    save("maps/a.tif", Image.fromarray(MASK > 0))
    (tmp_path / "maps/a.png").unlink()
    (tmp_path / "maps/b.png").unlink()
    save("maps/b.tif", SOFT.astype(np.float32))
    first, second = pairs_of(tmp_path / "maps", benchmark).pairs
    assert [pair.map_levels((9, 12))[1] for pair in (first, second)] == [1, 255]


def test_masks_that_were_predicted_are_their_union(benchmark, save, tmp_path):
    save("p/1.png", MASK)
    save("p/2.png", np.flipud(MASK))
    save("p/large.png", np.kron(MASK, np.ones((2, 2), np.uint8)))
    line = '{{"images": ["{0}"], "masks": [{1}], "task": "sod"}}\n'
    (tmp_path / "p/predictions.jsonl").write_text(
        line.format("a.jpg", '["1.png", "2.png"]') + line.format("b.jpg", "[]")
    )
    first, second = pairs_of(tmp_path / "p", benchmark).pairs
    assert first.files == {"truth": f"{benchmark}/masks/a.png", "prediction": ""}  # several files
    levels, top, resized = first.map_levels((9, 12))
    assert np.array_equal(levels, (MASK | np.flipud(MASK)) // 255)
    assert (levels.dtype, top, resized) == (np.uint8, 1, False)
    assert not second.map_levels((9, 12))[0].any()
    (tmp_path / "p/predictions.jsonl").write_text(
        line.format("a.jpg", '["large.png"]') + line.format("b.jpg", '["1.png"]')
    )
    levels, _, resized = pairs_of(tmp_path / "p", benchmark).pairs[0].map_levels((9, 12))
    assert np.array_equal(levels * 255, MASK)
    assert resized


@pytest.mark.parametrize("name", ["maps.parquet", "maps.npz", "maps.pkl", "maps.zip"])
def test_a_file_that_is_no_json_holds_no_predictions(benchmark, tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=rf"{name}: a file of predictions is COCO results, \.json") as error:
        pairs_of(tmp_path / name, benchmark)
    assert "\n" not in str(error.value)


def test_a_folder_of_tables_holds_none_and_they_are_named(benchmark, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"no predictions; looked for images, npy and npz .*found 1 x \.parquet"):
        pairs_of(tmp_path / "tables", benchmark)


def read(pair):
    return pair.map_levels(pair.truth_levels()[0].shape)[0].sum()


def test_pairs_go_to_other_processes(benchmark, tmp_path):
    pairs = pairs_of(tmp_path / "maps", benchmark).pairs
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert [int(total) for total in pool.map(read, pairs)] == [int(SOFT.sum())] * 2


def test_damaged_files_are_read_or_refused_by_one_line_that_names_them(benchmark, tmp_path):
    rng, read_, lines = random.Random(1), 0, []
    logging.disable(logging.WARNING)
    try:
        for path in (benchmark / "masks/a.png", tmp_path / "maps/a.png", benchmark / "images/a.jpg"):
            sound = path.read_bytes()
            for _ in range(40):
                damaged = bytearray(sound)
                for _ in range(rng.choice([1, 3])):
                    damaged[rng.randrange(len(damaged))] = rng.randrange(256)
                path.write_bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.3 else damaged)
                try:
                    pair = pairs_of(tmp_path / "maps", benchmark).pairs[0]
                    pair.map_levels(pair.truth_levels()[0].shape)
                    read_ += 1
                except ValueError as error:
                    lines.append((path.name, str(error)))
            path.write_bytes(sound)
    finally:
        logging.disable(logging.NOTSET)
    assert read_ > 0
    assert lines
    for name, line in lines:
        assert name in line or "a.png" in line  # a photograph of another shape: its mask does not fit
        assert "\n" not in line
