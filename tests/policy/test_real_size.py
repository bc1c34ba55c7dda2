"""Qwen2.5-VL as published, without its weights: parameters counted by hand, and what its real vocabulary may say."""

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.shape import count_parameters, on_meta
from lightning_sal.policy.suppressed import suppressed_ids

# config.json of Qwen/Qwen2.5-VL-7B-Instruct; the 3B has other values where SMALLER says so.
PUBLISHED = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "use_sliding_window": False,
    "sliding_window": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
    },
}
SMALLER = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_window_layers": 70,
    "tie_word_embeddings": True,
    "vision_config": PUBLISHED["vision_config"] | {"out_hidden_size": 2048},
}
# The ids that the published tokenizer adds; those from <tool_call> on are text to it, the others special.
ADDED = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
]
FIRST = 151643
ENDS = (151645, 151643)  # eos_token_id of the published generation_config.json: <|im_end|> and <|endoftext|>


@pytest.fixture(params=["7B", "3B"])
def sizes(request, tmp_path):
    """A published configuration as transformers reads it, and the parameters of such a model by hand."""
    published = PUBLISHED | (SMALLER if request.param == "3B" else {})
    (tmp_path / "config.json").write_text(json.dumps(published))
    return AutoConfig.from_pretrained(tmp_path), *by_hand(published)


def by_hand(c):
    """(language model, vision tower, adapters of rank 16 on all seven linear layers)."""
    hidden, wide, head = c["hidden_size"], c["intermediate_size"], 128
    queries, keys = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    layers = c["num_hidden_layers"]
    attention = (hidden + 1) * queries + 2 * (hidden + 1) * keys + queries * hidden  # only the last has no bias
    layer = attention + 3 * hidden * wide + 2 * hidden
    tables = 1 if c["tie_word_embeddings"] else 2
    language = layers * layer + tables * c["vocab_size"] * hidden + hidden
    v = c["vision_config"]["hidden_size"]
    mlp = 2 * (v + 1) * 3420 + (3420 + 1) * v
    block = 3 * (v + 1) * v + (v + 1) * v + mlp + 2 * v
    merger = v + (4 * v + 1) * 4 * v + (4 * v + 1) * hidden
    vision = 3 * 2 * 14 * 14 * v + 32 * block + merger
    ends = (hidden + queries) + 2 * (hidden + keys) + (queries + hidden) + 3 * (hidden + wide)
    return language, vision, layers * 16 * ends


def test_sums_by_hand_are_those_that_are_published():
    assert by_hand(PUBLISHED) == (7_615_616_512, 676_550_144, 40_370_176)
    assert 7_615_616_512 + 676_550_144 == 8_292_166_656
    assert by_hand(PUBLISHED | SMALLER) == (3_085_938_688, 668_684_288, 29_933_568)


def test_with_lora_the_adapters_alone_are_trained(sizes):
    config, language, vision, adapters = sizes
    model = on_meta(config, PolicyConfig(dtype="bfloat16", lora=LoRA(rank=16)))
    assert count_parameters(model) == {
        "vision tower": (0, vision),
        "language model": (0, language),
        "adapters": (adapters, 0),
    }
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 7 * 2 * config.text_config.num_hidden_layers
    assert all(".language_model." in f".{name}" and p.dtype == torch.float32 for name, p in trained.items())
    assert not any("lora" in name for name, _ in model.model.visual.named_parameters())
    assert all(p.is_meta for p in model.parameters())


def test_without_lora_the_language_model_is_trained_and_the_vision_tower_only_on_request(sizes):
    config, language, vision, _ = sizes
    assert count_parameters(on_meta(config, PolicyConfig())) == {
        "vision tower": (0, vision),
        "language model": (language, 0),
        "adapters": (0, 0),
    }
    assert count_parameters(on_meta(config, PolicyConfig(train_vision=True)))["vision tower"] == (vision, 0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Qwen's ids in its own files: 256 bytes, what stands for its merged tokens, and the tokens that it adds."""
    folder = tmp_path_factory.mktemp("tokenizer")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"merged {i}" for i in range(FIRST - len(alphabet)))]
    qwen = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    qwen.pre_tokenizer, qwen.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [token for token in ADDED if "|" in token][:14]
    qwen.add_tokens([AddedToken(token, normalized=False, special=token in special) for token in ADDED])
    qwen.save(str(folder / "tokenizer.json"))
    stated = {
        "tokenizer_class": "Qwen2Tokenizer",
        "additional_special_tokens": special[1:],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return AutoTokenizer.from_pretrained(folder)


def test_added_tokens_have_the_published_ids(tokenizer):
    assert tokenizer.convert_tokens_to_ids(ADDED) == list(range(151643, 151665))
    assert tokenizer("<|image_pad|>")["input_ids"] == [151655]
    assert len(tokenizer) == 151665


def test_no_placeholder_can_be_said_and_only_the_two_ends_end(tokenizer, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    suppressed = suppressed_ids(SimpleNamespace(tokenizer=tokenizer), AutoConfig.from_pretrained(tmp_path), ENDS)
    assert suppressed.shape == (152064,)
    special = set(range(FIRST, 151657))
    beyond = set(range(151665, 152064))
    assert set(suppressed.nonzero()[:, 0].tolist()) == (special - set(ENDS)) | beyond
