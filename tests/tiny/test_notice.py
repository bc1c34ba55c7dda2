"""The line about the embedded models: where it is said, and where it is not."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_sal.tiny.notice import notice
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

REAL = "Qwen/Qwen2.5-VL-7B-Instruct", "YxZhang/evf-sam2-multitask"


def test_each_half_says_what_to_use_instead():
    both, policy, segmenter = map(str, (notice("tiny"), notice("tiny-early", REAL[1]), notice(REAL[0])))
    assert notice(*REAL) is None
    assert [all(name in line for name in REAL) for line in (both, policy, segmenter)] == [True, False, False]
    assert REAL[0] in policy
    assert REAL[1] in segmenter
    assert not any("\n" in line for line in (both, policy, segmenter))


def test_what_was_trained_or_exported_from_an_embedded_model_is_one(tmp_path):
    for name, base in (("small", str(EMBEDDED_POLICIES["tiny"])), ("large", REAL[0])):
        (tmp_path / f"{name}.adapter").mkdir()
        (tmp_path / f"{name}.adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        torch.save({"policy": {"model": base}, "state_dict": {}}, tmp_path / f"{name}.ckpt")
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "config.json").write_text((EMBEDDED_POLICIES["tiny-perception"] / "config.json").read_text())
    for model in ("small.adapter", "small.ckpt", "exported"):
        assert notice(str(tmp_path / model), REAL[1]), model
    for model in ("large.adapter", "large.ckpt"):
        assert notice(str(tmp_path / model), REAL[1]) is None, model


@pytest.mark.parametrize("content", [b"", b"{", b"no checkpoint"])
def test_what_cannot_be_read_is_left_to_who_loads_it(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    (tmp_path / "config.json").write_bytes(content)
    assert notice(str(tmp_path / "a.ckpt"), REAL[1]) is None
    assert notice(str(tmp_path), REAL[1]) is None
