"""A small Qwen2.5-VL with random weights: transformers' own classes, a tokenizer of the scenes' words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_sal.tasks import SEMANTIC, SIS, SOD
from lightning_sal.tasks.blocks import BLOCKS, tags_of
from lightning_sal.tiny.scenes import COLOURS, SHAPES, SIZE, scene_group
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

INSTRUCTIONS = {
    "sod": "Which regions stand out?",
    "sis": "Which instances stand out?",
    "cosod": "What do all images share?",
}
# Not among the texts that the tokenizer is made from, which the embedded weights were trained with.
QUESTION = {"vqa": "Look. Answer."}
BRIEF = {
    "sod without reasoning": "Which regions? Answer.",
    "sis without reasoning": "Which instances? Answer.",
    "cosod without reasoning": "What is shared? Answer.",
    "vqa without reasoning": "Answer.",
}
ROLES = ("user", "assistant")
LAYERS = 3  # of language
TAGS = (*tags_of(*BLOCKS, SOD.tag, SIS.tag), SEMANTIC)  # what scenes are answered by, whatever other tasks are known
_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def _learnt(wording: str) -> Any:
    """Vocabulary and merges out of the words of scenes. Learnt once, since all those scenes are drawn for it."""
    corpus = [scene_group(0, task, i, wording=wording).response or "" for task in INSTRUCTIONS for i in range(200)]
    for tag in TAGS:
        corpus = [text.replace(tag, " ") for text in corpus]
    return learn_words(
        [*corpus, *[*INSTRUCTIONS.values(), *(f"{c} {s}" for c in COLOURS for s in SHAPES), *ROLES] * 20]
    )


def learn_words(corpus: Sequence[str]) -> Any:
    """Vocabulary and merges of a byte-level BPE, as the model part of its JSON has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    empty: Any = Qwen2Tokenizer()._tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=640, initial_alphabet=alphabet, min_frequency=2, show_progress=False)
    )
    return json.loads(bpe.to_str())["model"]


def build_tokenizer(wording: str = "plain") -> Any:
    """A byte-level BPE `Qwen2Tokenizer` whose merges come from scene responses; any Unicode text round-trips.

    Args:
        wording: Key of `lightning_sal.tiny.wording.WORDINGS`, how those responses are worded.
    """
    from tokenizers import AddedToken

    tokenizer = tokenizer_of(_learnt(wording))
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return tokenizer


def tokenizer_of(learnt: Any) -> Any:
    """A `Qwen2Tokenizer` of what `learn_words` gives, with the special tokens of the small policies."""
    from transformers import Qwen2Tokenizer

    make: Any = Qwen2Tokenizer  # its annotations leave out what it takes
    return make(
        vocab=dict(learnt["vocab"]),
        merges=[tuple(m) for m in learnt["merges"]],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", *_VISION],
        padding_side="left",
    )


def build_processor(tokenizer: Any = None) -> Any:
    """The `Qwen2_5_VLProcessor` of a small policy: every image becomes 4 x 4 visual tokens.

    Args:
        tokenizer: Its tokenizer; None takes `build_tokenizer`.
    """
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = SIZE * SIZE
    images = Qwen2VLImageProcessor(
        patch_size=14, temporal_patch_size=2, merge_size=2, min_pixels=pixels, max_pixels=pixels
    )
    return Qwen2_5_VLProcessor(
        image_processor=images,
        tokenizer=build_tokenizer() if tokenizer is None else tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_CHAT_TEMPLATE,
    )


def scratch_policy(seed: int = 0) -> tuple[Any, Any, dict[str, str]]:
    """Model, processor and instructions of the small policy before any training.

    Args:
        seed: Seed of the random weights.
    """
    processor = build_processor()
    return random_model(processor.tokenizer, seed), processor, INSTRUCTIONS | QUESTION | BRIEF


def varied_scratch() -> tuple[Any, Any, dict[str, str]]:
    """Model, processor and instructions of `tiny-early` with the words of varied responses, before it is trained on them."""
    tokenizer = build_tokenizer("varied")
    model = random_model(tokenizer)
    take_over(model, tokenizer, "tiny-early")
    return model, build_processor(tokenizer), INSTRUCTIONS | QUESTION | BRIEF


def take_over(model: Any, tokenizer: Any, name: str, but: frozenset[str] = frozenset()) -> Tensor:
    """Give a small policy the weights of an embedded one, which has another tokenizer and may have fewer layers.

    A token that the embedded one lacks starts as the mean of what it is spelt by there.

    Args:
        model: The small policy, changed in place.
        tokenizer: Its tokenizer.
        name: Of the embedded policy, one with the tokenizer of plain responses.
        but: Tokens that keep their rows where the embedded one lacks them.

    Returns:
        (V, C) rows of the embedded one's tokens.
    """
    from transformers import Qwen2_5_VLForConditionalGeneration

    start: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(EMBEDDED_POLICIES[name], dtype=torch.float32)
    known = start.get_input_embeddings().weight.detach()
    rows = model.get_input_embeddings().weight.detach().clone()
    spelling = build_tokenizer()
    for token, at in tokenizer.get_vocab().items():
        if token in spelling.get_vocab():
            rows[at] = known[spelling.get_vocab()[token]]
        elif token not in but:
            rows[at] = known[spelling(tokenizer.decode([at]), add_special_tokens=False)["input_ids"]].mean(0)
    state = start.state_dict()
    state |= {key: rows for key, value in state.items() if value.shape == known.shape}
    model.load_state_dict(model.state_dict() | state)
    return known


def random_model(tokenizer: Any, seed: int = 0, layers: int = LAYERS) -> Any:
    """The small Qwen2.5-VL for a tokenizer, with so many layers of language and random weights, in evaluation mode."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _VISION}
    width, heads = 128, 4
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=384,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[4, 6, 6]),  # half of 32 a head
            initializer_range=0.06,
            bos_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=dict(
            depth=4,
            hidden_size=width,
            intermediate_size=384,
            num_heads=heads,
            out_hidden_size=width,
            patch_size=14,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=112,
            fullatt_block_indexes=[0, 1, 2, 3],
            initializer_range=0.06,
        ),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    generation.bos_token_id = tokenizer.pad_token_id
    return model.eval()
