"""Responses that come from elsewhere than a policy: without confidence, tokens and log-probabilities."""

from __future__ import annotations

import json
import math

import pytest
import torch

from lightning_sal.evaluation.comparison import Sample, differences, read_arms, summary, table, write_arms
from lightning_sal.evaluation.metrics import Evaluation
from lightning_sal.inference.responses import Prediction, Response, find_masks, prediction_of, responses_of
from lightning_sal.pages.answer import answer_html
from lightning_sal.pages.answer_folder import AnswerFolder
from lightning_sal.predictions.readers import labels_of, prediction_readers
from lightning_sal.rewards import Reward
from lightning_sal.samples import ImageGroup, Usage
from lightning_sal.tasks import SIS, SOD
from tests.modules.parts import StripeSegmenter

USAGE = Usage(seconds=1.5, input_tokens=900, output_tokens=12, cost=0.01)


def group(task: str = "sis") -> ImageGroup:
    image = torch.full((20, 30, 3), 50, dtype=torch.uint8)
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[:, 5:15] = True
    return ImageGroup("a.jpg", task, (image,), (mask,), paths=("a.jpg",))


def answered(text: str, task: str = "sis", **options) -> Response:
    (response,) = find_masks(responses_of([group(task)], [text], **options), StripeSegmenter())
    return response


def test_texts_of_others_are_segmented_by_what_they_mean() -> None:
    text = "1. **the dog**: bright\n2. **a cat**"
    strict, lenient = answered(text), answered(text, reading="lenient", usage=[USAGE], truncated=[True])
    assert [mask.shape[0] for mask in (*strict.masks, *lenient.masks)] == [0, 2]
    expected = answered(SIS.response("so", ["the dog", "a cat"]))
    assert lenient.masks[0].equal(expected.masks[0])
    assert lenient.answer.reason == strict.answer.reason is not None
    assert (lenient.usage, lenient.truncated, lenient.confidence) == (USAGE, True, None)
    assert prediction_of(lenient).usage == USAGE
    with pytest.raises(ValueError, match="2 groups and 1 responses"):
        responses_of([group(), group()], [text])


def evaluated(*confidences: float | None) -> tuple[dict[str, float], list]:
    text = SOD.response("so", ["a dog"])
    responses = [answered(text, "sod", confidence=[each]) for each in confidences]
    reward = Reward()
    evaluation = Evaluation(terms=reward.names)
    rows = evaluation.update(evaluation.measure(responses), reward(responses))
    return {name: float(value) for name, value in evaluation.compute().items()}, rows


def test_confidence_is_absent_where_it_is_not_known() -> None:
    values, rows = evaluated(None, None)
    assert values["sod/malformed"] == 0
    assert not [name for name in values if "confidence" in name or "ece" in name]
    assert [row.fields["confidence"] for row in rows] == ["", ""]
    some, rows = evaluated(0.5, None)
    assert some["sod/confidence"] == 0.5
    assert some["sod/ece"] == pytest.approx(abs(some["sod/reward"] - 0.5), abs=1e-6)
    assert [row.fields["confidence"] for row in rows] == [0.5, ""]


def test_pages_and_files_of_a_response_without_confidence(tmp_path) -> None:
    response = answered("- the dog\n- a cat", reading="lenient")
    prediction = prediction_of(response)
    page = answer_html(prediction, style=False)
    assert "confidence" not in page
    assert "the dog" in page
    folder = AnswerFolder(tmp_path, {"task": "sis"})
    folder.add(prediction)
    folder.finish([])
    line = json.loads((tmp_path / "predictions.jsonl").read_text())
    assert line["confidence"] is None
    assert labels_of(line) == ["the dog", "a cat"]
    shapes = json.loads((tmp_path / "instances.json").read_text())["annotations"]
    assert [(shape["expression"], shape["score"]) for shape in shapes] == [("the dog", 1), ("a cat", 1)]
    (reader,) = prediction_readers(tmp_path, SIS, "any", {}).values()
    assert reader((20, 30))[0].equal(response.masks[0])


def test_a_line_of_before_labels_were_written_is_read_for_them() -> None:
    assert labels_of({"task": "sis", "response": SIS.response("so", ["the dog"])}) == ["the dog"]


def test_a_policy_that_computes_nan_is_still_named() -> None:
    response = answered("the dog", confidence=[math.nan])
    with pytest.raises(ValueError, match=r"a\.jpg: the policy computes NaN"):
        prediction_of(response)
    assert Prediction(group(), "", response.answer, (), None).confidence is None


def test_arms_are_compared_without_confidence(tmp_path) -> None:
    with_it, without = Sample("a", "sod", True, 0.5, 0.75, 0.5), Sample("a", "sod", True, 0.25, 0.5, None)
    arms = {"policy": [with_it], "endpoint": [without]}
    write_arms(arms, tmp_path / "arms.jsonl")
    assert read_arms(tmp_path / "arms.jsonl") == arms
    assert "confidence" not in summary([without])
    for shown in (table(arms, "both"), differences(arms, "policy")):
        *_, cells = ([*column.cells] for column in shown.renderables[1].columns)
        assert cells[-1] == ""
