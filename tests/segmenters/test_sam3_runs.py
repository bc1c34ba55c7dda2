"""SAM 3 as the segmenter of `lightning test`, `lightning-sal segment` and rewards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.evaluation.results import read_summary
from lightning_sal.inference.responses import Response, find_masks
from lightning_sal.segmenters import SAM3
from lightning_sal.tasks import TASKS
from lightning_sal.tiny.scenes import scene_group
from tests.segmenters.sam3_parts import save, tiny_model, tiny_processor


@pytest.fixture
def sam3(tmp_path, monkeypatch):
    """A folder of a small SAM 3, beside which the test runs."""
    monkeypatch.chdir(tmp_path)
    return save(tmp_path / "sam3")


def test_responses_keep_masks_and_presence_scores():
    """Of several tasks, and of a task without masks, in one call."""
    segmenter = SAM3(tiny_model(), tiny_processor(), presence_threshold=0)
    groups = [scene_group(1, task, 0) for task in ("sod", "sis", "cosod")]
    texts = [
        "<think>a</think><answer><rg>red ring</rg><rg>[semantic] dot</rg></answer>",
        "<think>a</think><answer><ins>red ring</ins></answer>",
        "nothing",
    ]
    responses = [Response(g, t, TASKS[g.task].parse(t)) for g, t in zip(groups, texts, strict=True)]
    found = find_masks(responses, segmenter)
    assert [[len(scores) for scores in each.presence] for each in found] == [[2], [1], [0] * len(groups[2].images)]
    for response in found[:2]:
        (masks,) = segmenter.segment(
            response.group.images, [TASKS[response.group.task].prompts(response.answer, (1, 1))]
        )
        assert torch.equal(response.prompt_masks[0], masks)


def test_a_benchmark_by_a_second_config(sam3):
    """As conf/eval/sam3.yaml names it. Nothing is as sure as a presence threshold of 1: all that is left is the truth."""
    truths = []
    for number in range(2):
        group = scene_group(9, "sod", number)
        truths.append(group.masks[0].float().mean())
        for folder, kind, pixels in (("Image", "jpg", group.images[0]), ("GT", "png", group.masks[0][0].byte() * 255)):
            Path("data/ECSSD", folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.numpy()).save(f"data/ECSSD/{folder}/{number}.{kind}")
    conf = Path(__file__).parents[2] / "conf/eval"
    segmenter = "--model.init_args.segmenter.init_args"
    argv = ["test", "--config", str(conf / "ecssd.yaml"), "--config", str(conf / "sam3.yaml")]
    argv += [f"{segmenter}.source={sam3}", f"{segmenter}.presence_threshold=1", "--data.init_args.root=data"]
    argv += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert main(argv) == 0
    results = read_summary(Path("runs/eval/ecssd"))
    assert results.metrics["ECSSD"]["mae"] == pytest.approx(torch.stack(truths).mean().item(), abs=1e-5)


def test_photographs_by_name(sam3, capsys):
    Path("photos").mkdir()
    Image.fromarray(scene_group(9, "sis", 0).images[0].numpy()).save("photos/a.png")
    assert main(["segment", "photos", "--task", "sis", "--segmenter", str(sam3), "--device", "cpu"]) == 0
    (line,) = [json.loads(line) for line in Path("runs/segment/predictions.jsonl").read_text().splitlines()]
    (scores,) = line["presence"]
    assert len(scores) == len(line["expressions"]) > 0
    assert all(0 <= score <= 1 for score in scores)
    missing = [words for words, score in zip(line["expressions"], scores, strict=True) if score < 0.5]
    out = capsys.readouterr().out
    assert all(f'"{words}" in photos/a.png (presence 0.' in out for words in missing[:3])
