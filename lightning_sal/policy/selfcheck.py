"""Does the installed transformers compute what `backbone` takes it to compute? Asked once of each kind of model.

A small model with random weights reads two prompts by its own public forward pass, and then as the policy does. A release
that moved positions, masks or features would otherwise give wrong answers in silence: 5.4 and 5.5 did.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_sal.errors import UsageError
from lightning_sal.internals.versions import tested_range, warn_untested
from lightning_sal.policy.attention import Alone
from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.decoding.decoder import Decoder
from lightning_sal.policy.decoding.memory import Shape
from lightning_sal.policy.decoding.reading import read_prompts
from lightning_sal.policy.decoding.state import State
from lightning_sal.policy.positions import mrope_positions
from lightning_sal.policy.prompts import FastPrompts

_IMAGE, _VIDEO, _START, _END = 1, 2, 3, 4
_VOCABULARY = 16
_GRIDS = ((1, 4, 6), (1, 2, 4), (1, 4, 4))  # patches of three images; four of them make a visual token
_PROMPTS = (
    (5, _START, *[_IMAGE] * 6, _END, 6, 7, _START, *[_IMAGE] * 2, _END, 8, 9),
    (_START, *[_IMAGE] * 4, _END, 10, 11),
)
_TOLERANCE = 1e-4  # of logits of some units in float32; what moves changes them by a tenth at least


@cache
def check(model_type: str) -> None:
    """Compare reading prompts, and decoding a token behind them, with the model's own forward pass.

    Args:
        model_type: As the `config.json` of a model states it.

    Raises:
        UsageError: If they differ, or a part is not where it was; it names what moved.
    """
    import transformers

    warn_untested("transformers", "peft", "torch")
    advice = (
        f"transformers {transformers.__version__} computes {model_type} in a way that this version of lightning-sal does "
        f"not know (%s): install {tested_range('transformers')}"
    )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad(), torch.autocast("cpu", enabled=False):
        try:
            moved = differing(small_model(model_type))
        except (AttributeError, TypeError, ImportError, KeyError, IndexError) as error:
            raise UsageError(advice % f"{type(error).__name__}: {error}") from error
    if moved:
        raise UsageError(advice % f"{', '.join(moved)} differ")


def small_model(model_type: str) -> Any:
    """A model of a kind with 2 layers of 16 channels and weights large enough that every part matters."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    rope = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 1, 1]}
    text = dict(
        vocab_size=_VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, rope_parameters=rope, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    vision = dict(
        depth=2, hidden_size=16, intermediate_size=24, num_heads=2, out_hidden_size=16, patch_size=2,
        temporal_patch_size=2, spatial_merge_size=2, window_size=8, fullatt_block_indexes=[1],
        num_position_embeddings=16, deepstack_visual_indexes=[0],
    )  # fmt: skip
    config = AutoConfig.for_model(
        model_type,
        text_config=text,
        vision_config=vision,
        image_token_id=_IMAGE,
        video_token_id=_VIDEO,
        vision_start_token_id=_START,
        vision_end_token_id=_END,
    )
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0 if parameter.ndim > 1 else 1.0, 0.3, generator=generator)
    return model


def differing(model: Any) -> list[str]:
    """What is not as in the model's own forward pass; the model is changed."""
    width = max(map(len, _PROMPTS))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in _PROMPTS])
    mask, grids = ids > 0, torch.tensor(_GRIDS)
    patches = torch.randn(int(grids.prod(1).sum()), 3 * 2 * 2 * 2, generator=torch.Generator().manual_seed(1))
    expected = model(
        input_ids=ids,
        attention_mask=mask.long(),
        pixel_values=patches,
        image_grid_thw=grids,
        mm_token_type_ids=(ids == _IMAGE).int(),
    ).logits

    backbone, lengths = Backbone(model), tuple(map(len, _PROMPTS))
    positions = mrope_positions(backbone.is_image(ids), lengths, grids, backbone.merge)
    features = backbone.features(patches, grids)
    visual = (torch.cat(features[:2]), features[2])
    prompts = FastPrompts(ids, mask, positions, positions.amax(dim=(0, 2)) + 1, visual, lengths)
    embeds, deep = backbone.prompt_embeds(prompts), backbone.deep_features(prompts)
    read = backbone.head(backbone.read(embeds, positions, Alone.of(lengths, width), **deep))
    results = {"images, positions or masks of prompts": (read[mask], expected[mask])}
    ends = backbone.head(backbone.read(embeds, positions, Alone.of(lengths, width), last=2, **deep))
    results["the last tokens alone"] = (ends, expected[:, -2:])

    earlier = tuple(length - 1 for length in lengths)
    before = FastPrompts(ids[:, :-1], mask[:, :-1], positions[:, :, :-1], positions[0, :, -1], visual, earlier)
    for name, own in (("a decoding step", False), ("a decoding step of merged weights", True)):
        decoder = Decoder(backbone, embeds.dtype, torch.zeros(_VOCABULARY, dtype=torch.bool), own=own)
        results[name] = (_decoded(backbone, decoder, before, ids[:, -1]), expected[:, -1])
    return [name for name, (ours, theirs) in results.items() if not torch.allclose(ours, theirs, 0.0, _TOLERANCE)]


def _decoded(backbone: Backbone, decoder: Decoder, prompts: FastPrompts, token: Tensor) -> Tensor:
    """(P, V) logits of one more token (P,) behind prompts."""
    count, width = prompts.ids.shape
    state = State(decoder, Shape(count, 1, width, 2), decoder.suppressed, None)
    hidden = read_prompts(backbone, prompts, state.memory, decoder.order)
    real = torch.arange(width) < torch.tensor(prompts.lengths)[:, None]
    state.begin(hidden, real, prompts.following, None)
    state.memory.open(state.step)
    return decoder.logits(decoder.forward(decoder.embed(token), state.turns[:, 0], state.memory.attend))
