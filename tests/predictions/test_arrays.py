"""Maps as files of NumPy: one array of numbers is read, anything else is refused by one line, and nothing is unpickled."""

import io
import pickle
import random
import zipfile

import numpy as np
import pytest

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.predictions.map_files import MapFile, map_levels, map_mode

GREY = np.arange(108).reshape(9, 12) * 2
ARRAYS = {  # what is saved -> values, what means 1
    "uint8": (GREY.astype(np.uint8), GREY, 255),
    "uint16": (GREY.astype(np.uint16), GREY, 65535),
    "big endian": (GREY.astype(">u2"), GREY, 65535),
    "int64": (GREY, GREY, 65535),
    "bool": (GREY > 100, GREY > 100, 1),
    "float16": ((GREY / 256).astype(np.float16), (GREY / 256).astype(np.float16), 1),
    "float64": (GREY / 255, GREY / 255, 1),
    "Fortran": (np.asfortranarray(GREY / 255), GREY / 255, 1),
    "with axes of 1": ((GREY / 255)[None, :, :, None], GREY / 255, 1),
}


class Loaded(Exception):
    pass


class Trap:
    def __reduce__(self):
        return _spring, ()


def _spring():
    raise Loaded


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_read_as_it_stands(tmp_path, name, suffix):
    saved, values, top = ARRAYS[name]
    path = tmp_path / f"a{suffix}"
    (np.save if suffix == ".npy" else np.savez_compressed)(path, saved)
    levels, meant = map_levels(path)
    assert np.array_equal(levels, values)
    assert levels.dtype in (np.uint8, np.uint16, np.float64)
    assert meant == top
    assert map_mode(path) == {1: "1" if saved.dtype == bool else "F", 255: "L", 65535: "I"}[top]
    assert MapFile(path)((9, 12))[0].numpy() == pytest.approx(values[None] / top)


def npy(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(*members: tuple[str, bytes], **options) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


OBJECTS = npy(np.array([[Trap()]]), allow_pickle=True)
HUGE = header("{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000)}\n")
REFUSED = {
    "pickled.npy": (OBJECTS, "holds pickled objects, which are never loaded"),
    "pickled.npz": (npz(("a.npy", OBJECTS)), "holds pickled objects, which are never loaded"),
    "a pickle.npy": (pickle.dumps(Trap()), "not an array of NumPy"),
    "a pickle.npz": (pickle.dumps(Trap()), "File is not a zip file"),
    "text.npz": (npz(("a.txt", b"hello, world")), "not an array of NumPy"),
    "two.npz": (npz(("a.npy", npy(GREY)), ("b.npy", npy(GREY))), r"2 arrays \(a.npy, b.npy\): keep the one"),
    "none.npz": (npz(), r"0 arrays \(none\)"),
    "records.npy": (npy(np.zeros(3, [("a", "f4")])), "an array of .*, where numbers must stand"),
    "complex.npy": (npy(GREY * 1j), "an array of complex128, where numbers must stand"),
    "colours.npy": (npy(np.zeros((9, 12, 3))), r"an array of \(9, 12, 3\), where \(height, width\) must stand"),
    "empty.npy": (npy(np.zeros((0, 12))), r"an array of \(0, 12\)"),
    "number.npy": (npy(np.zeros(())), r"an array of \(\)"),
    "logits.npy": (npy(GREY / 255 - 1), "float64 with values outside 0 to 65535"),
    "nan.npy": (npy(GREY * np.nan), "float64 with values outside 0 to 65535"),
    "huge.npy": (HUGE, r"an array of \(900000, 900000\), more numbers than a map may have pixels"),
    "huge.npz": (npz(("a.npy", HUGE + bytes(10**6)), compression=zipfile.ZIP_DEFLATED), "more numbers than"),
    "short.npy": (npy(GREY)[:-9], ""),
    "beside.npy": (header("__import__('os')\n"), ""),
    "deep.npy": (header("[" * 5000 + "\n"), ""),
    "nothing.npy": (b"", "not an array of NumPy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_by_one_line(tmp_path, name):
    content, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableSample, match=rf"{name}: .*{reason}") as error:
        map_levels(path)
    assert "\n" not in str(error.value)


def test_damaged_files_are_read_or_refused(tmp_path):
    rng, read, lines = random.Random(0), 0, []
    for suffix, content in (("npy", npy(GREY)), ("npz", npz(("a.npy", npy(GREY)), compression=zipfile.ZIP_DEFLATED))):
        for _ in range(150):
            damaged = bytearray(content)
            for _ in range(rng.choice([1, 2, 5])):
                damaged[rng.randrange(min(len(damaged), 140))] = rng.randrange(256)
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(damaged)
            try:
                map_levels(path)
                read += 1
            except UnreadableSample as error:
                lines.append(str(error))
    assert read > 0
    assert lines
    assert not any("\n" in line for line in lines)
