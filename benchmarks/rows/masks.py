"""Masks a second of EVF-SAM2-L from words and of SAM2 large from boxes and points; random weights, images on the CPU."""

from __future__ import annotations

import statistics
from argparse import Namespace
from typing import Any

from rows.inputs import mixed, photographs
from rows.row import Row, Values

EACH = 4  # prompts an image


def measure(given: Namespace) -> Values:
    """P photographs with four prompts each, in one call of `segment`."""
    import torch
    from meter import Meter

    with torch.device(given.device):
        segmenter, prompts = {"words": _words, "boxes": _boxes}[given.prompted](given)
    segmenter.to(given.device).eval()
    images = photographs(given.prompts, given.height, given.width)
    meter = Meter(given.device)
    with mixed(given):
        for _ in range(given.warmup + given.repeats):
            meter.begin()
            masks = segmenter.segment(images, [prompts] * len(images))
            meter.end()
    assert all(mask.shape == (EACH, given.height, given.width) for mask in masks), "masks of another shape"
    report = meter.report(given.warmup)
    seconds = statistics.median(meter.steps[given.warmup :])
    return {
        "masks a second": EACH * len(images) / seconds,
        "images a second": len(images) / seconds,
        "peak GB": (meter.idle + report["memory"]) / 1e9,
    }


def _words(given: Namespace) -> tuple[Any, list[Any]]:
    from lightning_sal.segmenters import EVFSAM2
    from lightning_sal.segmenters.tiny import embedded_evf_sam2
    from lightning_sal.tiny.segmenter_tokenizer import build_word_tokenizer

    words = ["the dog", "a red car on the left", "the person in front", "the largest bird"]
    if given.model == "tiny":
        return embedded_evf_sam2(), words
    return EVFSAM2(tokenizer=build_word_tokenizer(words)), words


def _boxes(given: Namespace) -> tuple[Any, list[Any]]:
    from lightning_sal.samples import VisualPrompt
    from lightning_sal.segmenters.sam2_prompt import SAM2Prompt
    from lightning_sal.segmenters.tiny import tiny_sam2_prompt

    box = (given.width / 8, given.height / 8, given.width / 2, given.height / 2)
    point = (given.width / 4, given.height / 4)
    prompts = [
        VisualPrompt(box),
        VisualPrompt(tuple(2 * side for side in box)),
        VisualPrompt(box, (point,), (1,)),
        VisualPrompt(None, (point,), (1,)),
    ]
    return (tiny_sam2_prompt() if given.model == "tiny" else SAM2Prompt()), prompts


ROWS = [
    Row("EVF-SAM2-L, words", measure, seconds=22, gigabytes=24, options={"prompted": "words"}),
    Row("SAM2 large, boxes and points", measure, seconds=18, gigabytes=16, options={"prompted": "boxes"}),
]
