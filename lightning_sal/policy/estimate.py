"""How much memory a training step takes, by arithmetic from the sizes of the model and of the step.

What always stands: weights, adapters, gradients, AdamW's two moments. Beside it stands one phase of the step at a time, so
the peak is what always stands plus the largest phase. Bytes of tensors are counted: what the allocator rounds up, what
kernels borrow and the segmenter come on top.

Checked on the CPU alone, against every allocation of two steps of a Qwen2.5-VL of 26 million parameters: within 6 % with
adapters (SFT, CGPO, GRPO with G = 8; gradient checkpointing off and on; float32 and bf16-mixed; micro-batches, padding;
buffers rounded up and kept as on a GPU), 11 % above with several images a prompt, and 9 % above where the language model
itself is trained.

Legend: C hidden size, I intermediate size, A attention width (heads x their width), B key width (key heads x their
width), N decoder layers, V vocabulary, R rank; P prompts of L tokens, K images each, G responses of T tokens to each; M
tokens of a micro-batch; s bytes of a number in activations (2 under bf16-mixed), w of a frozen weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_sal.policy.config import LINEAR_LAYERS, PolicyConfig

MOST_LOGITS = 2**26  # of lightning_sal.policy.policy, a test checks
MERGED_PARAMETERS = 100_000_000  # of lightning_sal.policy.decoding.merging, a test checks


@dataclass(frozen=True)
class Buffers:
    """How sampling allocates, as `lightning_sal.policy.sampling` does on a device.

    Args:
        prompt: What lengths of prompts are rounded up to.
        response: What lengths of responses are rounded up to.
        kept: Whether buffers stay from rollout to rollout, since steps were captured on them.
    """

    prompt: int
    response: int
    kept: bool


ON_CPU, ON_GPU = Buffers(1, 1, kept=False), Buffers(256, 128, kept=True)


@dataclass(frozen=True)
class Sizes:
    """Sizes of a policy under training.

    Args:
        hidden: C.
        intermediate: I.
        attention: A.
        keys: B.
        depth: Width of a head.
        layers: N.
        vocabulary: V.
        rank: R, 0 without adapters.
        targets: Linear layers with adapters; all seven where the language model itself is trained.
        vision_hidden: Hidden size of the vision tower.
        vision_intermediate: Intermediate size of the vision tower.
        patch_values: Numbers of a patch, 3 x 2 x 14 x 14.
        patches_per_token: Patches that one visual token merges, 4.
        weights: Bytes of all parameters but the adapters.
        adapters: Bytes of the adapters.
        trained: Bytes of what is trained.
        copied: Bytes of the copies that sampling makes of weights: of adapters in the dtype of the products, of layers and
            head where that is not theirs, or of all with adapters merged.
        joined: Numbers of adapters as sampling has them.
        merged: Whether it is a small model in float32, with adapters merged into a copy.
        number: s.
        casts: Whether each adapter keeps a copy of its input, cast to what it computes in.
        adapter_number: Bytes of a number in the inputs of adapters.
    """

    hidden: int
    intermediate: int
    attention: int
    keys: int
    depth: int
    layers: int
    vocabulary: int
    rank: int
    targets: frozenset[str]
    vision_hidden: int
    vision_intermediate: int
    patch_values: int
    patches_per_token: int
    weights: int
    adapters: int
    trained: int
    copied: int
    joined: int
    merged: bool
    number: int
    casts: bool
    adapter_number: int

    @classmethod
    def of(cls, model: Any, config: PolicyConfig, *, autocast: bool) -> Sizes:
        """Of a model as `load_shape` returns it; `autocast` says whether the precision is mixed with a half one."""
        text, vision = model.config.text_config, model.config.vision_config
        head = text.hidden_size // text.num_attention_heads
        parameters = dict(model.named_parameters())
        bytes_of = {name: p.numel() * p.element_size() for name, p in parameters.items()}
        adapters = sum(size for name, size in bytes_of.items() if ".lora_" in name)
        language = {name: p for name, p in parameters.items() if "language_model." in name}
        width = next(iter(language.values())).element_size()
        number = 2 if autocast else width
        merged = number == width == 4 and sum(p.numel() for p in language.values()) <= MERGED_PARAMETERS
        whole = sum(p.numel() for name, p in language.items() if ".layers." in name and ".lora_" not in name)
        whole += text.vocab_size * text.hidden_size
        joined = _joined_adapters(text, head, config)
        return cls(
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            attention=text.num_attention_heads * head,
            keys=text.num_key_value_heads * head,
            depth=head,
            layers=text.num_hidden_layers,
            vocabulary=text.vocab_size,
            rank=config.lora.rank if config.lora else 0,
            targets=config.lora.names if config.lora else frozenset(LINEAR_LAYERS),
            vision_hidden=vision.hidden_size,
            vision_intermediate=vision.intermediate_size,
            patch_values=3 * vision.temporal_patch_size * vision.patch_size**2,
            patches_per_token=vision.spatial_merge_size**2,
            weights=sum(bytes_of.values()) - adapters,
            adapters=adapters,
            trained=sum(bytes_of[name] for name, p in parameters.items() if p.requires_grad),
            copied=number * (whole if merged else whole * (number != width) + joined),
            joined=joined,
            merged=merged,
            number=number,
            casts=config.lora is not None and autocast == (width == 4),
            adapter_number=2 if autocast else 4 if config.lora else width,
        )


def _joined_adapters(text: Any, head: int, config: PolicyConfig) -> int:
    """Numbers of adapters as sampling has them: those of layers with one input below each other, and beside each other in
    blocks."""
    c, i, a, b = text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads
    a, b = a * head, b * head
    inputs = (
        (c, {"q_proj": a, "k_proj": b, "v_proj": b}),
        (a, {"o_proj": c}),
        (c, {"gate_proj": i, "up_proj": i}),
        (i, {"down_proj": c}),
    )
    lora = config.lora
    if lora is None:
        return 0
    counts = (len(out.keys() & lora.names) * (given + sum(out.values())) for given, out in inputs)
    return text.num_hidden_layers * lora.rank * sum(counts)


@dataclass(frozen=True)
class Step:
    """One training step, all prompts of the same length.

    Args:
        prompts: P.
        images: K.
        visual_tokens: Of one image.
        prompt_tokens: L, visual ones included.
        response_tokens: T.
        responses: G.
        micro_batch: Responses of a micro-batch; None for all.
        sampled: Whether the responses are sampled, as in RL, or given, as in SFT.
        padded: Whether prompts of a micro-batch differ in length.
    """

    prompts: int
    images: int
    visual_tokens: int
    prompt_tokens: int
    response_tokens: int
    responses: int = 1
    micro_batch: int | None = None
    sampled: bool = True
    padded: bool = True

    @property
    def apart(self) -> bool:
        """Whether prompts of a micro-batch are attended in several runs of one length."""
        return self.padded and self.together[0] > 1

    @property
    def together(self) -> tuple[int, int]:
        """Prompts of a micro-batch, and responses to each of them."""
        rows = self.prompts * self.responses
        size = min(self.micro_batch or rows, rows)
        return max(1, size // self.responses), min(size, self.responses)


@dataclass(frozen=True)
class Estimate:
    """Bytes of the parts of a step.

    Args:
        held: Part -> bytes, at all times.
        phases: Phase -> part -> bytes, while that phase lasts.
    """

    held: dict[str, int]
    phases: dict[str, dict[str, int]]

    @property
    def largest(self) -> str:
        """The phase with the peak."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        """Bytes."""
        return sum(self.held.values()) + sum(self.phases[self.largest].values())


def estimate(sizes: Sizes, step: Step, *, checkpointing: bool, buffers: Buffers = ON_GPU) -> Estimate:
    """What a step takes from the second on, when gradients and moments are there."""
    rollout = rollout_bytes(sizes, step, buffers)
    held = {
        "weights": sizes.weights,
        "adapters": sizes.adapters,
        "gradients": sizes.trained,
        "AdamW states": 2 * sizes.trained,
        **(rollout if buffers.kept and step.sampled else {}),
    }
    during = {} if buffers.kept else rollout
    encoded = step.prompts if step.sampled else step.together[0]
    visual = encoded * step.images * step.visual_tokens
    features = {"visual features": visual * sizes.hidden * sizes.number}
    row = tokens(step) * sizes.hidden * sizes.number  # what goes into a layer, or comes out
    layer = layer_bytes(sizes, step)
    activations = features | {"activations": sizes.layers * (row if checkpointing else layer)}
    again = {"a layer computed again": layer - row} if checkpointing else {}  # its input is there
    sampling = {
        "read prompts": features | during | reading_bytes(sizes, step),
        "write responses": features | during | {"logits": 3 * 4 * sizes.vocabulary * step.prompts * step.responses},
    }
    phases = {
        "encode images": {"vision tower": vision_bytes(sizes, visual)},
        **(sampling if step.sampled else {}),
        "score": activations | {"last hidden states": 2 * row, "logits": logits_bytes(sizes, step)},
        "backward": activations | again | {"gradients of a layer": gradient_bytes(sizes, step)},
        "optimiser": {"AdamW's square roots": sizes.trained},
    }
    return Estimate(held, phases)


def tokens(step: Step) -> int:
    """M = prompts of a micro-batch x (L + responses to each x T): a prompt is read once for its responses."""
    prompts, responses = step.together
    return prompts * (step.prompt_tokens + responses * step.response_tokens)


def vision_bytes(sizes: Sizes, visual: int) -> int:
    """The vision tower without gradients, of `visual` tokens at once.

    A patch has its pixels in float32, with a copy in half precision where that is computed in, and the most of one block.
    That is, of narrow rows, 13 at its attention: input, norm, query, key, value, the two rotated, what windows gather of
    three, and their result twice; in half precision 5 and 6 in float32, in which they are rotated; or at its MLP 2 and
    three wide ones.
    """
    s, narrow, wide = sizes.number, sizes.vision_hidden, sizes.vision_intermediate
    rotation = (5 * s + 6 * 4) * narrow if s < 4 else 0
    block = max(13 * s * narrow, rotation, s * (2 * narrow + 3 * wide))
    pixels = sizes.patch_values * (4 if s == 4 else 4 + s)
    return visual * sizes.patches_per_token * (pixels + block)


def reading_bytes(sizes: Sizes, step: Step) -> dict[str, int]:
    """Reading all prompts at once, without gradients: the wide rows of a layer's MLP, two of an adapter among them, 4 I (3 I
    without adapters), beside three narrow ones, 3 C, for each of P L tokens."""
    wide = (4 if sizes.rank else 3) * sizes.intermediate + 3 * sizes.hidden
    return {"a layer": step.prompts * step.prompt_tokens * wide * sizes.number}


def rollout_bytes(sizes: Sizes, step: Step, buffers: Buffers) -> dict[str, int]:
    """What growing G responses behind each prompt is done on.

    KV cache: 2 N B s P (L + G T), L and T rounded up; a prompt stands there once. The mask of it, of G A / B rows a prompt.
    Of each token its id (8 bytes), probability and random number (4 each); cosines and sines of T places a prompt, 2 D s,
    or 4 (A + 2 B) where the model is merged.
    """
    s, rows = sizes.number, step.prompts * step.responses
    length, tokens = (
        -(-size // block) * block
        for size, block in ((step.prompt_tokens, buffers.prompt), (step.response_tokens, buffers.response))
    )
    columns = step.prompts * (length + step.responses * tokens)
    turn = 4 * (sizes.attention + 2 * sizes.keys) if sizes.merged else 2 * sizes.depth * s
    mask = columns * step.responses * (sizes.attention // sizes.keys) * s
    return {
        "KV cache": 2 * sizes.layers * sizes.keys * s * columns,
        "mask and tokens": mask + rows * tokens * 16 + step.prompts * tokens * turn,
        "copies of weights": sizes.copied,
    }


def layer_bytes(sizes: Sizes, step: Step) -> int:
    """What a decoder layer keeps for its backward pass.

    A token, in numbers: the inputs of its two norms, 2 C, in float32; query, key, value and output of the attention,
    2 A + 2 B, and the output once more where it was put together from several runs; the two factors of the gated product,
    2 I; and R of each adapter with its input, but for the one behind the product, which is computed again. Inputs are those
    that adapters share, C for query, key and value, C for gate and up, or a copy for each adapter where they are cast.
    """
    c, i, a, b = sizes.hidden, sizes.intermediate, sizes.attention, sizes.keys
    inputs = {"q_proj": c, "k_proj": c, "v_proj": c, "o_proj": a, "gate_proj": c, "up_proj": c}
    shared = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
    targets = sizes.targets & inputs.keys()
    taken = targets if sizes.casts else [min(each & targets) for each in shared if each & targets]
    adapters = sum(inputs[name] for name in taken) + sizes.rank * len(targets)
    numbers = 2 * a + 2 * b + 2 * i + (a if step.apart else 0)
    return tokens(step) * (2 * c * 4 + adapters * sizes.adapter_number + numbers * sizes.number)


def logits_bytes(sizes: Sizes, step: Step) -> int:
    """3 n V in float32, log-softmax, its gradient and that of the logits, where n is the response tokens of a micro-batch.

    Where n V is more than 2^26, logits are computed in chunks of that many numbers.
    """
    prompts, responses = step.together
    chunk = max(1, MOST_LOGITS // sizes.vocabulary)
    return 3 * 4 * sizes.vocabulary * min(prompts * responses * step.response_tokens, chunk)


def gradient_bytes(sizes: Sizes, step: Step) -> int:
    """What passes through a layer backwards, most at its MLP: M (4 I + C) s, the product that is computed again included."""
    return tokens(step) * (4 * sizes.intermediate + sizes.hidden) * sizes.number
