"""How long a training step takes, by arithmetic: operations over FLOP/s or bytes over bandwidth, whichever is more.

Nothing here is measured. An operation is a multiplication or an addition of a matrix product; scores that a causal mask
hides are counted, and so are those that the backward pass of attention computes again. Starting kernels, preparing images,
the segmenter, the reward and the data loader are left out, and so are the bytes of activations. One update a rollout is
counted, without a reference policy.

Operations are checked against `torch.utils.flop_counter` on a small model, number by number.

Legend as in `lightning_sal.policy.estimate`: C hidden size, A attention width, B key width, N decoder layers, V vocabulary;
P prompts of L tokens, K images each, G responses of T tokens to each; s bytes of a number in activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.estimate import MOST_LOGITS, Sizes, Step
from lightning_sal.policy.gpus import GPU, REACHED_ARITHMETIC, REACHED_BANDWIDTH


@dataclass(frozen=True)
class Matrices:
    """Numbers in the matrices of a policy, by how often a step multiplies with them.

    Args:
        patch: That each patch goes through: its embedding and all vision blocks.
        merged: That each visual token goes through behind them.
        vision_width: Heads x their width in the vision tower.
        whole: Vision blocks in which a patch sees all of its image.
        windowed: Vision blocks in which it sees its window alone.
        window: Patches of a window.
        layers: Of all decoder layers, adapters aside.
        adapters: Of the adapters.
        keys_values: Of what makes keys and values in all decoder layers, adapters aside.
        adapters_keys_values: Of their adapters.
        last: Of the last product of each layer, which checkpointing need not compute again.
        head: C V.
        trains_layers: Whether the language model itself is trained.
    """

    patch: int
    merged: int
    vision_width: int
    whole: int
    windowed: int
    window: int
    layers: int
    adapters: int
    keys_values: int
    adapters_keys_values: int
    last: int
    head: int
    trains_layers: bool

    @classmethod
    def of(cls, model: Any, config: PolicyConfig) -> Matrices:
        """Of a model as `load_shape` returns it."""
        text, vision = model.config.text_config, model.config.vision_config
        numbers = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 1}
        tower = {n: count for n, count in numbers.items() if ".visual." in f".{n}" and "pos_embed" not in n}
        merged = sum(count for name, count in tower.items() if "merger" in name)
        adapters = sum(count for name, count in numbers.items() if ".lora_" in name)
        decoder = {name: count for name, count in numbers.items() if "language_model.layers." in name}
        keys_values = {name: count for name, count in decoder.items() if ".k_proj." in name or ".v_proj." in name}
        adapted = sum(count for name, count in keys_values.items() if ".lora_" in name)
        whole = len(getattr(vision, "fullatt_block_indexes", range(vision.depth)))
        window = (getattr(vision, "window_size", 0) // vision.patch_size) ** 2
        return cls(
            patch=sum(tower.values()) - merged,
            merged=merged,
            vision_width=vision.hidden_size,
            whole=whole,
            windowed=vision.depth - whole,
            window=window,
            layers=sum(decoder.values()) - adapters,
            adapters=adapters,
            keys_values=sum(keys_values.values()) - adapted,
            adapters_keys_values=adapted,
            last=sum(count for name, count in decoder.items() if name.endswith(_last_product(config))),
            head=text.hidden_size * text.vocab_size,
            trains_layers=config.lora is None,
        )


def _last_product(config: PolicyConfig) -> str:
    adapted = config.lora is not None and "down_proj" in config.lora.names
    return "mlp.down_proj.lora_B.default.weight" if adapted else "mlp.down_proj.weight"


@dataclass(frozen=True)
class Work:
    """What a phase does.

    Args:
        operations: Of matrix products.
        bytes: That it reads and writes at least.
    """

    operations: float
    bytes: float

    def seconds(self, gpu: GPU) -> float:
        """On a GPU of which the assumed shares are reached."""
        arithmetic = self.operations / (REACHED_ARITHMETIC * gpu.tflops * 1e12)
        return max(arithmetic, self.bytes / (REACHED_BANDWIDTH * gpu.bandwidth * 1e12))


def work(matrices: Matrices, sizes: Sizes, step: Step, *, checkpointing: bool) -> dict[str, Work]:
    """Phase -> what a step does in it."""
    sampling = {
        "read prompts": _reading(matrices, sizes, step),
        "write responses": _writing(matrices, sizes, step),
    }
    return {
        "encode images": _encoding(matrices, sizes, step),
        **(sampling if step.sampled else {}),
        **_updating(matrices, sizes, step, checkpointing=checkpointing),
        # AdamW reads weight, gradient and two moments and writes three of them; clipping reads gradients twice, writes once.
        "optimiser": Work(0, 10 * sizes.trained),
    }


def _encoding(matrices: Matrices, sizes: Sizes, step: Step) -> Work:
    """Each image of S patches: 2 S times the matrices, and 4 x width x S x what a patch sees in a block's attention."""
    patches = step.visual_tokens * sizes.patches_per_token
    seen = matrices.whole * patches + matrices.windowed * min(matrices.window, patches)
    an_image = 2 * (patches * matrices.patch + step.visual_tokens * matrices.merged)
    an_image += 4 * matrices.vision_width * patches * seen
    return Work(step.prompts * step.images * an_image, (matrices.patch + matrices.merged) * sizes.number)


def _reading(matrices: Matrices, sizes: Sizes, step: Step) -> Work:
    """P L tokens through the layers, L^2 pairs of attention a prompt, and the head for the last token of each."""
    rows, length = step.prompts, step.prompt_tokens
    operations = 2 * rows * (length * (matrices.layers + matrices.adapters) + matrices.head)
    return Work(operations + _attention(sizes, rows * length**2), _weights(matrices, sizes))


def _writing(matrices: Matrices, sizes: Sizes, step: Step) -> Work:
    """T - 1 tokens a response, since the first comes of the prompt; token t sees L + t.

    Each reads all weights once, whatever P and G, and the keys and values of P (L + G t) tokens. What buffers hold beyond
    that, and scores of other responses that a mask hides, are left out.
    """
    rows, passes = step.prompts * step.responses, step.response_tokens - 1
    written = passes * step.response_tokens / 2  # the sum of t
    pairs = rows * (passes * step.prompt_tokens + written)
    kept = step.prompts * passes * step.prompt_tokens + rows * written
    read = matrices.layers + matrices.head + (0 if sizes.merged else sizes.joined)
    keys = 2 * sizes.layers * sizes.keys * sizes.number * kept
    return Work(2 * rows * passes * read + _attention(sizes, pairs), passes * read * sizes.number + keys)


def _updating(matrices: Matrices, sizes: Sizes, step: Step, *, checkpointing: bool) -> dict[str, Work]:
    """Scoring all micro-batches and propagating back through them.

    Of a prompt the last layer makes keys and values alone, but for its last token. Back through a frozen matrix goes one
    product, through a trained one two, through attention five for the two of its forward pass. Checkpointed layers but for
    their last product, and logits in chunks, are computed once more.
    """
    prompts, responses = step.together
    parts = math.ceil(step.prompts * step.responses / (prompts * responses))
    length, response = step.prompt_tokens, step.response_tokens
    tokens = parts * prompts * (length + responses * response)
    skipped = parts * prompts * (length - 1) / sizes.layers  # tokens that go through no more than keys and values there
    behind = parts * prompts * responses * response * (length + response)  # pairs of response tokens and what they see
    alone = responses == 1
    pairs = parts * prompts * ((length + response) ** 2 if alone else length**2) + (0 if alone else behind)
    pairs -= (pairs - behind - parts * prompts * length) / sizes.layers
    answers = parts * prompts * responses * response
    layers = 2 * (tokens * matrices.layers - skipped * (matrices.layers - matrices.keys_values))
    adapters = 2 * (tokens * matrices.adapters - skipped * (matrices.adapters - matrices.adapters_keys_values))
    attention, head = _attention(sizes, pairs), 2 * answers * matrices.head
    forward = layers + adapters + attention
    trained = 2 if matrices.trains_layers else 1
    backward = trained * (layers + head) + 2 * adapters + 2.5 * attention
    chunked = answers / parts * sizes.vocabulary > MOST_LOGITS
    again = (forward - 2 * (tokens - skipped) * matrices.last) * checkpointing + head * chunked
    read = parts * _weights(matrices, sizes)
    return {
        "score": Work(forward + head, read),
        "backward": Work(backward + again, read * (1 + checkpointing)),
    }


def _attention(sizes: Sizes, pairs: float) -> float:
    """Two products of A numbers for each pair of tokens and layer."""
    return 4 * sizes.attention * sizes.layers * pairs


def _weights(matrices: Matrices, sizes: Sizes) -> float:
    """Bytes of what a token of the language model is multiplied with."""
    return (matrices.layers + matrices.adapters + matrices.head) * sizes.number
