"""Milliseconds a token of decoding, beside what the memory bandwidth allows.

One token of all rows = (a sample of T tokens - a sample of one token) / (T - 1), so that reading the prompts is left out.
At least, each token reads the weights of the decoder layers and of the head, their adapters, and the keys and values so
far: those bytes over the bandwidth are the bound, once over that of a copy, once over that of the data sheet.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from typing import Any
from unittest import mock

from rows.inputs import groups, mixed, random_policy
from rows.machine import copy_bandwidth, data_sheet
from rows.row import Row, Values


def measure(given: Namespace) -> Values:
    """One batch of P prompts with G responses each."""
    import torch
    from meter import Meter

    policy = random_policy(given, cuda_graphs=given.captured)
    policy.decode = lambda tokens, _: ("",) * len(tokens)  # the texts are no part of what is timed
    torch.backends.cuda.enable_cudnn_sdp(given.cudnn)
    meter, replays = Meter(given.device), 0

    def seconds(tokens: int) -> float:
        nonlocal replays
        replays = 0
        start = meter.now()
        rollout = policy.sample(prompts, tokens, responses=given.responses)
        took = meter.now() - start
        assert rollout.tokens.shape[1] == tokens, "a response ended early"
        assert rollout.logp.isfinite().all(), "a log-probability is not finite"
        return took

    def count(graph: Any) -> None:
        nonlocal replays
        replays += 1
        replay(graph)

    replay = torch.cuda.CUDAGraph.replay
    with torch.no_grad(), mixed(given):
        prompts = policy.encode(groups(given, images=given.images)[: given.prompts])
        with mock.patch.object(torch.cuda.CUDAGraph, "replay", count):
            for _ in range(given.warmup):
                one, all_ = seconds(1), seconds(given.decoded)
            pairs = [(seconds(1), seconds(given.decoded)) for _ in range(given.repeats)]
    if given.device == "cuda" and bool(replays) is not given.captured:
        raise RuntimeError(f"a sample replayed {replays} graphs, with captured {given.captured}")
    one, all_ = (statistics.median(column) for column in zip(*pairs, strict=True))
    token = 1000 * (all_ - one) / (given.decoded - 1)
    bytes_ = token_bytes(policy, prompts, given)
    bound, gpu = 1000 * bytes_ / copy_bandwidth(given), data_sheet(given)
    return {
        "ms a token": token,
        "bound ms": bound,
        "by data sheet": "not known" if gpu is None else bytes_ / gpu.bandwidth / 1e9,
        "of bound": token / bound,
        "s to read": one,
        "prompt tokens": max(prompts.lengths),
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if given.device == "cuda" else 0.0,
        "replays": replays,
    }


def token_bytes(policy: Any, prompts: Any, given: Namespace) -> float:
    """Bytes that one token of all rows reads at least, in the middle of a response: adapters in the dtype of the weights."""
    backbone = policy.backbone
    text = backbone.text_config
    layers, head = backbone.language_model.layers, backbone.model.lm_head
    number = next(layers.parameters()).element_size()
    weights = sum(weight.numel() for part in (layers, head) for weight in part.parameters())
    keys = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    read = sum(prompts.lengths) + len(prompts) * given.responses * given.decoded / 2
    return number * (weights + 2 * text.num_hidden_layers * keys * read)


def _row(responses: int, images: int, *, captured: bool, cudnn: bool = False) -> Row:
    how = ("captured" if captured else "eager") + (", cuDNN attention" if cudnn else "")
    return Row(
        f"decode {8 * responses} rows, {images} image{'s' * (images > 1)} a prompt, {how}",
        measure,
        seconds=14 + 5 * (images > 1) + (0 if captured else 4),
        gigabytes=60 if images > 1 else 30,
        options={"responses": responses, "images": images, "captured": captured, "cudnn": cudnn},
    )


SHAPES = [(1, 1), (8, 1), (1, 4), (8, 4)]
ROWS = [_row(*shape, captured=captured) for captured in (True, False) for shape in SHAPES]
CUDNN_ROWS = [_row(1, 1, captured=captured, cudnn=True) for captured in (False, True)]
