"""Finding files and reading them as arrays waits for no torch, which takes seconds to load."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lightning_sal.datasets.images import read_mask
from lightning_sal.datasets.pixels import cut, mask_levels, read_frame
from lightning_sal.predictions.map_files import map_levels

CODE = """
import sys
import lightning_sal.datasets
from lightning_sal.predictions.readers import prediction_readers
from lightning_sal.tasks import get_task

root, preds, name = sys.argv[1:]
task = get_task(name)
photographs = [photo for record in lightning_sal.datasets.task_records(task, root, "test") for photo in record.photographs]
shapes = [photo.annotation.levels(photo.size(), 1)[0].shape for photo in photographs]
assert shapes == [(9, 12)], shapes
from pathlib import Path
readers = prediction_readers(Path(preds), task, "", {})
assert len(readers) == 1
assert "torch" not in sys.modules, "torch was imported"
"""


@pytest.mark.parametrize(("task", "group"), [("sod", ""), ("cosod", "cat/")])
def test_files_are_found_and_read_without_torch(save, tmp_path, task, group):
    save(f"data/image/{group}a.jpg")
    for folder in ("data/gt", "preds"):
        save(f"{folder}/{group}a.png", np.full((9, 12), 255, np.uint8))
    subprocess.run([sys.executable, "-c", CODE, tmp_path / "data", tmp_path / "preds", task], check=True)


def as_16_bits(grey: np.ndarray) -> np.ndarray:
    return grey.astype(np.uint16) * 257


GREY = np.arange(108, dtype=np.uint8).reshape(9, 12) * 2
FILES = {  # how a grey is written -> values, what means 1
    "8 bits": (GREY, GREY, 255),
    "16 bits": (as_16_bits(GREY), as_16_bits(GREY), 65535),
    "1 bit": (Image.fromarray(GREY > 100), (GREY > 100).astype(np.uint8), 1),
    "colour": (np.repeat(GREY[:, :, None], 3, axis=2), GREY, 255),
    "floats": (GREY.astype(np.float32) / 255, GREY.astype(np.float32) / 255, 1),
}


@pytest.mark.parametrize("name", FILES)
def test_levels_are_the_values_of_the_file_in_its_own_type(save, name):
    written, values, top = FILES[name]
    path = save("a.tif", written)
    for levels, meant in (map_levels(path), mask_levels(path)):
        assert np.array_equal(levels, values)
        assert levels.dtype == (values.dtype if values.dtype.kind == "u" else np.float64)
        assert meant == top
    levels = mask_levels(path)
    assert np.array_equal(cut(*levels), np.asarray(values, dtype=np.float64) * 255 > 128 * top)
    assert np.array_equal(cut(*levels), read_mask(path).numpy())


def test_the_frame_of_a_turned_photograph_is_that_in_which_it_is_shown(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_frame(save("a.jpg", None, exif=exif)) == ((12, 9), 6)
    assert read_frame(save("b.jpg")) == ((9, 12), 1)
