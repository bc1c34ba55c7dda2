"""What the tests of the published EVF-SAM2 share."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

FIXTURES = Path(__file__).resolve().parents[2] / ".." / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the reference fixtures (../shared/fixtures) are absent"
)


def load(name: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(FIXTURES / name)


def small_arguments() -> dict[str, Any]:
    """Sizes of the small model whose weights and results lie in the fixtures, as arguments of `EVFSAM2`."""
    config = json.loads((FIXTURES / "evf_sam2_small_config.json").read_text())
    overrides = dict(item.lstrip("+").split("=", 1) for item in config["sam2_overrides"])
    sizes = config["beit3"]
    return {
        "sam2_config": config["sam2_config"],
        "sam2_overrides": {key: json.loads(value) for key, value in overrides.items()},
        "beit3": {
            "image_size": sizes["img_size"],
            "patch_size": sizes["patch_size"],
            "vocab_size": sizes["vocab_size"],
            "width": sizes["encoder_embed_dim"],
            "layers": sizes["encoder_layers"],
            "heads": sizes["encoder_attention_heads"],
            "hidden": sizes["encoder_ffn_embed_dim"],
        },
        "hidden_size": config["hidden_size"],
        "out_dim": config["out_dim"],
        "image_size": config["image_size"],
    }


def write_tokenizer(folder: Path, texts: list[str], *, semantic: bool) -> Any:
    """A small sentencepiece model in the files of the published checkpoints, `[semantic]` added after the rest.

    Returns:
        The `SentencePieceProcessor` itself, whose ids the published ones exceed by one.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(texts * 30), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    special |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    stated = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 1e30, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    if semantic:
        (folder / "added_tokens.json").write_text(json.dumps({"[semantic]": processor.vocab_size() + 2}))
    return processor
