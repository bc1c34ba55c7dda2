"""What `predict` leaves on disk."""

import json

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.callbacks.prediction_writer import PredictionWriter
from lightning_sal.inference.responses import Prediction
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Expressions


def prediction(task="sod", paths=("a.jpg",), masks=1, key="key", size=(20, 30)):
    """Mask i of image k has its first row True from column 10 i + k on."""
    images = tuple(torch.full((*size, 3), 50, dtype=torch.uint8) for _ in range(len(paths) or 1))
    found = torch.zeros(len(images), masks, *size, dtype=torch.bool)
    for k in range(len(images)):
        for i in range(masks):
            found[k, i, 0, 10 * i + k :] = True
    group = ImageGroup(key, task, images, paths=tuple(paths))
    answer = Expressions(("x",) * masks, reason="no answer")
    return Prediction(group, "<think>t</think>", answer, tuple(found), 0.25)


class Foreign(L.LightningModule):
    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.calls = outputs, 0

    def predict_step(self, batch, batch_idx):
        self.calls += 1
        return [self.outputs[int(index)] for index in batch]


def predict(folder, outputs, *, batch_size=1, **options):
    module = Foreign(outputs)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[PredictionWriter(folder, **options)],
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.arange(len(outputs)), batch_size=batch_size)
    try:
        trainer.predict(module, loader, return_predictions=False)
    finally:
        assert module.calls == 0 or (folder / "predictions.jsonl").exists()
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def listed(lines):
    return [name for line in lines for names in (*line["masks"], line["overlays"]) for name in names]


def pixels(path):
    return np.array(Image.open(path))


def test_masks_overlays_and_lines(tmp_path, capsys):
    lines = predict(tmp_path, [prediction(paths=("sub/a.jpg",)), prediction("cosod", ("b.jpg", "c.png"))], batch_size=2)
    assert f"2 predictions: {tmp_path / 'predictions.jsonl'}" in capsys.readouterr().out
    assert lines[0] == {
        "task": "sod", "benchmark": "", "key": "key", "images": ["sub/a.jpg"], "response": "<think>t</think>",
        "labels": ["x"], "expressions": ["x"], "reason": "no answer", "confidence": 0.25, "masks": [["a.png"]],
        "overlays": ["a_overlay.png"],
    }  # fmt: skip
    assert lines[1]["masks"] == [["b.png"], ["c.png"]]
    mask = pixels(tmp_path / "c.png")
    assert mask.dtype == np.uint8
    assert mask.shape == (20, 30)
    assert mask[0].tolist() == [0] + [255] * 29
    assert mask[1:].max() == 0
    drawn = pixels(tmp_path / "c_overlay.png")
    assert drawn.shape == (20, 30, 3)
    assert (drawn[10:] == 25).all()  # dimmed, far from the mask
    assert (drawn[0, 1:] == 50).all()  # the object itself
    assert (drawn[:10] != 25).any(axis=-1).any(axis=1).any()  # its outline


def test_one_file_an_instance_and_none_without_instances(tmp_path):
    lines = predict(tmp_path, [prediction("sis", masks=2), prediction("sis", ("b.jpg",), masks=0)])
    assert lines[0]["masks"] == [["a_0.png", "a_1.png"]]
    assert (pixels(tmp_path / "a_1.png")[0] == 255).sum() == 20
    assert lines[1]["masks"] == [[]]
    assert pixels(tmp_path / "b_overlay.png").shape == (20, 30, 3)


def test_nothing_is_written_twice(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")  # not ours
    outputs = [
        prediction(paths=("x/a.jpg",)), prediction(paths=("y/a.jpg",)), prediction(paths=("a_overlay.jpg",)),
        prediction("sis", ("b.jpg",)), prediction(paths=("b_0.jpg",)), prediction(paths=("c" * 240 + ".jpg",)),
        prediction(paths=(), key="clip/7"), prediction("sis", (), key="clip/7"),
    ]  # fmt: skip
    lines = predict(tmp_path, outputs)
    files = listed(lines)
    assert len(set(files)) == len(files) == 16
    assert {path.name for path in tmp_path.iterdir()} == {*files, "a.png", "predictions.jsonl"}
    assert pixels(tmp_path / "a.png").shape == (3, 3, 3)
    assert lines[6]["masks"] == [["clip_7.png"]]


def test_a_folder_with_predictions_is_refused_before_any_work(tmp_path):
    predict(tmp_path, [prediction()])
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    module = Foreign([prediction()])
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[PredictionWriter(tmp_path)]
    )
    with pytest.raises(FileExistsError, match="overwrite: true"):
        trainer.predict(module, torch.utils.data.DataLoader(torch.arange(1)))
    assert module.calls == 0
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_overwriting_removes_what_the_old_list_names_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    predict(folder, [prediction("sis", masks=3)])
    (tmp_path / "mine.png").touch()
    (folder / "mine.png").touch()
    with (folder / "predictions.jsonl").open("a") as file:
        file.write('{"masks": [["../mine.png"]], "overlays": ["..", ""]}\n{"masks": [["mine.pn')
    assert predict(folder, [prediction("sis", masks=1)], overwrite=True)[0]["masks"] == [["a_0.png"]]
    assert {path.name for path in folder.iterdir()} == {"a_0.png", "a_overlay.png", "mine.png", "predictions.jsonl"}
    assert (tmp_path / "mine.png").exists()


def test_lines_of_a_run_that_failed_are_kept(tmp_path):
    with pytest.raises(TypeError, match=r"predict_step must return a list of Prediction"):
        predict(tmp_path, [prediction(), "no prediction"])
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 1
