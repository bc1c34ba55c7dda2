"""Validation, test and prediction on an accelerator: what comes out is what comes out on the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal import Predictor
from lightning_sal.callbacks import EvaluationResults, PredictionWriter
from lightning_sal.datamodules import PredictDataModule
from lightning_sal.modules import SFT
from lightning_sal.tiny.scenes import scene_group
from tests.device import pretend
from tests.device.parts import WHOLE, module, scenes, trainer


@pytest.fixture(scope="module")
def policy(_accelerator):
    return module(SFT, model="tiny", max_new_tokens=WHOLE)


@pytest.fixture(scope="module")
def validated(policy, tmp_path_factory):
    """What validation finds on the CPU."""
    loop = trainer(tmp_path_factory.mktemp("cpu"), accelerator="cpu", strategy="auto", limit_val_batches=1.0)
    return loop.validate(policy, datamodule=scenes(), verbose=False)[0]


def test_validate(policy, validated, tmp_path):
    found = trainer(tmp_path, limit_val_batches=1.0).validate(policy, datamodule=scenes(), verbose=False)[0]
    assert found == pytest.approx(validated)
    assert {"val/sod/s_measure", "val/sis/iasm", "val/cosod/ciou", "val/sod/ece"} <= set(found)


def test_test(policy, validated, tmp_path):
    """In mixed precision, and with the files that it writes."""
    callbacks = [EvaluationResults(tmp_path / "results", name="x"), PredictionWriter(tmp_path / "predictions")]
    found = trainer(tmp_path, mixed=True, callbacks=callbacks).test(policy, datamodule=scenes(), verbose=False)[0]
    assert set(found) == {name.replace("val/", "test/") for name in validated}
    assert json.loads((tmp_path / "results" / "summary.json").read_text())
    assert len((tmp_path / "predictions" / "predictions.jsonl").read_text().splitlines()) == 4


def test_predict(policy, tmp_path):
    group = scene_group(0, "sod", 0)
    Image.fromarray(group.images[0].numpy()).save(tmp_path / "a.png")
    data = PredictDataModule([str(tmp_path / "a.png")])
    masks = []
    for name, options in (("cpu", {"accelerator": "cpu", "strategy": "auto"}), ("there", {})):
        writer = PredictionWriter(tmp_path / name)
        trainer(tmp_path, callbacks=[writer], **options).predict(policy, data, return_predictions=False)
        masks.append(np.asarray(Image.open(tmp_path / name / "a.png")))
    assert masks[0].any()
    assert np.array_equal(*masks)


def test_predictor_and_its_stream():
    group = scene_group(0, "sis", 1)
    expected = Predictor.load("tiny").predict([group])[0]
    predictor = Predictor.load("tiny", device=pretend.NAME)
    found = predictor.predict([group])[0]
    steps, texts = predictor.stream(group), []
    while True:
        try:
            texts.append(next(steps))
        except StopIteration as end:
            streamed = end.value
            break
    assert found.text == streamed.text == expected.text
    assert texts[-1] == expected.text
    for prediction in (found, streamed):
        assert prediction.masks[0].device == pretend.device()
        assert torch.equal(prediction.masks[0].cpu(), expected.masks[0])


def test_the_segmenter_takes_images_of_the_device(policy):
    """The bytes of an image are resized as on the CPU, which alone has a kernel for bilinear on bytes."""
    image = scene_group(0, "sod", 0).images[0]
    policy.configure_model()
    segmenter = policy.segmenter.words
    for expected, found in zip(
        segmenter.preprocess(image), segmenter.preprocess(image.to(pretend.device())), strict=True
    ):
        assert found.device == pretend.device()
        assert torch.equal(found.cpu(), expected)
