"""A folder of answers is resumed from whole lines, and nothing of others is touched."""

import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer_folder import AnswerFolder
from lightning_sal.pages.outlines import colour
from lightning_sal.predictions.readers import prediction_readers
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import SEMANTIC, SOD, Expressions, get_task
from tests.distributed.processes import process

SETTINGS = {"task": "sod", "model": "tiny"}


def prediction(*paths, task="sod", found=2):
    """Of `found` expressions, mask i has row i alone; the union of regions has them all."""
    images = (torch.full((8, 9, 3), 50, dtype=torch.uint8),) * len(paths)
    each = torch.zeros(found, 8, 9, dtype=torch.bool)
    for i in range(found):
        each[i, i] = True
    masks = each if task == "sis" else each.any(0, keepdim=True)
    group = ImageGroup(paths[0], task, images, paths=paths)
    labels = (f"{SEMANTIC} x" if task == "cosod" else "x",) * found
    text = get_task(task).response("t", labels)
    return Prediction(group, text, Expressions(labels), (masks,) * len(paths), 0.5, (each,) * len(paths))


def lines(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written(tmp_path):
    out = tmp_path / "new" / "out"
    folder = AnswerFolder(out, SETTINGS)
    folder.add(prediction("a/x.jpg"))
    folder.add(prediction("b/x.jpg", "b/y.png", task="cosod", found=1))
    folder.add(prediction("x.tif", task="sis"))
    folder.finish([])
    assert [(line["masks"], line["overlays"]) for line in lines(out)] == [
        ([["masks/x.png"]], ["overlays/x.png"]),
        ([["masks/x-2.png"], ["masks/y.png"]], ["overlays/x-2.png", "overlays/y.png"]),
        ([["masks/x-3_0.png", "masks/x-3_1.png"]], ["overlays/x-3.png"]),
    ]
    assert np.array(Image.open(out / "masks/x.png"))[:, 0].tolist() == [255, 255, 0, 0, 0, 0, 0, 0]
    colours = {tuple(pixel) for pixel in np.array(Image.open(out / "overlays/x.png")).reshape(-1, 3).tolist()}
    assert colour(0) in colours  # it runs over the neighbour, which is one pixel high
    coco = json.loads((out / "instances.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["x.tif"]
    assert [(shape["area"], shape["bbox"]) for shape in coco["annotations"]] == [(9, [0, 0, 9, 1]), (9, [0, 1, 9, 1])]


def test_scoring_reads_the_folder(tmp_path):
    folder = AnswerFolder(tmp_path, SETTINGS)
    folder.add(prediction("a/x.jpg"))
    folder.add(prediction("a/y.jpg", task="sis"))
    folder.finish([])
    readers = prediction_readers(tmp_path, SOD, "any", {})
    assert {name: reader((8, 9))[0].sum(dim=(1, 2)).tolist() for name, reader in readers.items()} == {
        "x": [18],
        "y": [9, 9],
    }


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg"]

    def run(out, wanted):
        folder = AnswerFolder(out, SETTINGS)
        for name in wanted:
            if not folder.holds("sod", [name]):
                folder.add(prediction(name))
        return folder

    run(tmp_path / "whole", names).finish([])
    out = tmp_path / "out"
    folder = run(out, names[:2])
    folder._lock.close()
    # Killed in the midst of the third: its mask is half a file, its place in the gallery and its line have no end.
    (out / "masks/c.png").write_bytes(b"\x89PNG")
    for name in ("predictions.jsonl", "index.html"):
        with (out / name).open("a") as file:
            file.write('{"task": "sod", "imag')
    run(out, names).finish([])
    assert files(out) == files(tmp_path / "whole")
    folder = AnswerFolder(out, SETTINGS)
    assert all(folder.holds("sod", [name]) for name in names)
    assert not folder.holds("sis", ["a.jpg"])


def write(out, wait):
    """Writes forty answers, less those that are there; is killed in the midst of it if there is a `wait`, in seconds."""
    if wait is not None:
        threading.Timer(wait, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    folder = AnswerFolder(out, SETTINGS)
    for i in range(40):
        if not folder.holds("sod", [f"{i}.jpg"]):
            folder.add(prediction(f"{i}.jpg"))
    folder.finish([])


def test_killed_at_any_moment_each_answer_is_there_once(tmp_path):
    """A process is killed by SIGKILL in the midst of writing, again and again, until one gets to the end."""
    for wait in [*(0.02 + 0.007 * i for i in range(10)), None]:
        child = process(write, tmp_path / "out", wait)
        child.start()
        child.join()
        assert child.exitcode in ((0, -signal.SIGKILL) if wait else (0,))
    assert sorted(line["images"] for line in lines(tmp_path / "out")) == sorted([f"{i}.jpg"] for i in range(40))
    assert len(list((tmp_path / "out/masks").iterdir())) == len(list((tmp_path / "out/overlays").iterdir())) == 40
    assert (tmp_path / "out/index.html").read_text().count('<div class="card">') == 40


def test_other_settings_and_other_files_are_refused(tmp_path):
    out = tmp_path / "out"
    AnswerFolder(out, SETTINGS | {"model": "mistyped"}).finish([])  # which left nothing that could be mixed up
    folder = AnswerFolder(out, SETTINGS)
    folder.add(prediction("a.jpg"))
    with pytest.raises(BlockingIOError, match="another process"):
        AnswerFolder(out, SETTINGS)
    folder.finish([])
    before = files(out)
    with pytest.raises(FileExistsError, match=r"out holds answers with model tiny \(now tiny-early\): .*--overwrite"):
        AnswerFolder(out, SETTINGS | {"model": "tiny-early"})
    assert files(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds other things"):
            AnswerFolder(tmp_path / "mine", SETTINGS, overwrite)
    with pytest.raises(FileExistsError, match="holds other things"):
        AnswerFolder(tmp_path / "mine/photo.jpg", SETTINGS)
    assert files(tmp_path / "mine") == {"photo.jpg": b"mine"}


def test_overwriting_deletes_answers_alone(tmp_path):
    out = tmp_path / "out"
    folder = AnswerFolder(out, SETTINGS)
    folder.add(prediction("a.jpg"))
    folder.add(prediction("s.jpg", task="sis"))
    folder.finish([])
    for name in ("masks/mine.png", "notes.txt"):
        (out / name).write_text("mine")
    (tmp_path / "other.png").write_text("mine")
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"masks": [["../other.png"]], "overlays": []}\n')
    folder = AnswerFolder(out, SETTINGS | {"model": "tiny-early"}, overwrite=True)
    folder.add(prediction("b.jpg"))
    folder.finish([])
    assert (tmp_path / "other.png").read_text() == "mine"
    assert set(files(out)) == {
        "segment.json", "predictions.jsonl", "index.html", "masks/b.png", "masks/mine.png", "overlays/b.png", "notes.txt"
    }  # fmt: skip
    assert [line["key"] for line in lines(out)] == ["b.jpg"]
    AnswerFolder(out, SETTINGS | {"model": "tiny-early"})
