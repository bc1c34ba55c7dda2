"""Qwen2.5-VL and Qwen3-VL as transformers has them: the one file that touches what transformers does not promise.

What is relied on: where the parts of a model are and what they are called, what its vision blocks are given, that a
keyword of a forward pass reaches the attention function of each layer, and `layer_idx` there. `selfcheck` compares what
comes of it with the model's own public forward pass, so that a release that changes it is refused and not believed.

Legend: P prompts, L their tokens, S tokens of a sequence, C hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.policy.attention import View
from lightning_sal.policy.layers import Attention, GatedMLP, GatedProduct, RMSNorm, last_tokens_alone
from lightning_sal.policy.prompts import FastPrompts
from lightning_sal.policy.vision import Windows, plan_windows, rotate
from lightning_sal.transfer import moved

MODEL_TYPES: dict[str, int | None] = {"qwen2_5_vl": None, "qwen3_vl": 1000}
"""Kind of model -> the side of the square in whose units it states places; None for pixels of the image as it is shown."""
_OWN = "lightning_sal"  # The attention function below, among those of transformers
_NORMS = ("Qwen2_5_VLRMSNorm", "Qwen3VLTextRMSNorm")


class Backbone:
    """A model of transformers, its slow parts replaced, as the policy calls it.

    Weights keep their names; numbers differ from the model's own by rounding alone.

    Args:
        model: `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration`; changed in place.
        attention: Back end of attention: `sdpa`, or another of transformers, which then sees one response a prompt.
        untouched: Whether the model stays as it is; reading is then done within `own_attention`.
    """

    def __init__(self, model: Any, attention: str = "sdpa", *, untouched: bool = False) -> None:
        self.model, self.attention = model, attention
        self.shares_prompts = attention == "sdpa"
        _register()
        if untouched:
            return
        replace_norms(model)
        for layer in language_model(model).layers:
            layer.mlp = GatedMLP(layer.mlp)
            if self.shares_prompts:
                layer.self_attn = Attention(layer.self_attn, _attend)
        if self.shares_prompts:
            language_model(model).layers[-1].register_forward_pre_hook(last_tokens_alone, with_kwargs=True)
        tower = vision_tower(model)
        tower.patch_embed = _FlatPatches(tower.patch_embed)
        if self.shares_prompts:
            for block in tower.blocks:
                block.attn = _BatchedWindows(block.attn)
        self._attend_by(_OWN if self.shares_prompts else attention)

    @property
    def attends_by_views(self) -> bool:
        """Whether the language model attends as views say at the moment."""
        return self.text_config._attn_implementation == _OWN

    @property
    def text_config(self) -> Any:
        return self.model.config.text_config

    @property
    def width(self) -> int:
        """C."""
        return self.text_config.hidden_size

    @property
    def merge(self) -> int:
        """Patches of a side of the square that becomes a visual token."""
        return self.model.config.vision_config.spatial_merge_size

    @property
    def vision(self) -> Any:
        return vision_tower(self.model)

    @property
    def language_model(self) -> Any:
        return language_model(self.model)

    @property
    def out_projections(self) -> list[Any]:
        """Layer -> the linear map from what its heads saw to what it adds to the hidden states."""
        return [layer.self_attn.o_proj for layer in self.language_model.layers]

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers of the language model, taken apart."""
        taken = []
        for layer in self.language_model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
            weights = tuple(norm.weight for norm in norms if isinstance(norm, nn.RMSNorm))
            taken.append(
                DecoderLayer(
                    (attention.q_proj, attention.k_proj, attention.v_proj),
                    weights,
                    attention.o_proj,
                    (mlp.gate_proj, mlp.up_proj),
                    mlp.down_proj,
                    layer.input_layernorm.weight,
                    layer.post_attention_layernorm.weight,
                    self.eps,
                )
            )
        return taken

    @property
    def eps(self) -> float:
        """Of the norms of the language model."""
        return self.text_config.rms_norm_eps

    @property
    def depth(self) -> int:
        """Width of a head of the language model."""
        config = self.text_config
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    @property
    def last_norm(self) -> Tensor:
        """(C,) weight of the norm behind the last layer."""
        return self.language_model.norm.weight

    @property
    def embedding(self) -> Tensor:
        """(V, C) embeddings of the ids."""
        return self.language_model.embed_tokens.weight

    @property
    def head_weight(self) -> Tensor:
        """(V, C) weight of the output layer."""
        return self.model.lm_head.weight

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (P, T, D) of the rotary embedding of words at (P, T) positions, each half of D alike."""
        cos, sin = self.language_model.rotary_emb(self.last_norm.detach(), positions.expand(3, -1, -1))
        # The three positions of a word are one and the same, so where each has numbers of its own they are alike.
        return cos.reshape(-1, *cos.shape[-3:])[0], sin.reshape(-1, *sin.shape[-3:])[0]

    @property
    def norms(self) -> list[nn.RMSNorm]:
        """All norms of the language model."""
        return [module for module in self.language_model.modules() if isinstance(module, nn.RMSNorm)]

    @property
    def products(self) -> list[GatedProduct]:
        """Layer -> the gated product of its MLP."""
        return [layer.mlp.product for layer in self.language_model.layers]

    def is_image(self, ids: Tensor) -> Tensor:
        """True where an id stands for a visual token."""
        return ids == self.model.config.image_token_id

    def features(self, patches: Tensor, grids: Tensor) -> list[Tensor]:
        """(visual tokens, C) features of each image; for Qwen3-VL those of earlier blocks beside them.

        Args:
            patches: (patches, values) of all images, as the image processor gives them.
            grids: (images, 3) patches in time, height and width; on the CPU, so that no device is asked for them.
        """
        tower, grids = self.vision, grids.cpu()
        output = tower(
            patches.to(tower.dtype), grid_thw=grids, return_dict=True, **self._planned(grids, patches.device)
        )
        counts = (grids.prod(1) // self.merge**2).tolist()
        levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
        return [torch.cat(parts, dim=1) for parts in zip(*(level.split(counts) for level in levels), strict=True)]

    def _planned(self, grids: Tensor, device: torch.device) -> dict[str, Any]:
        """What the vision tower would compute of grids, each time asking the device, under the names that it takes."""
        from transformers import vision_utils

        merge, tower = self.merge, self.vision
        borders = {"seqlen": vision_utils.get_vision_cu_seqlens(grids)}
        tensors = {"position_ids": vision_utils.get_vision_position_ids(grids, merge)}
        if hasattr(tower, "window_size"):
            tensors["window_index"], borders["window_seqlen"] = vision_utils.get_vision_window_index(
                grids, merge, tower.window_size, tower.patch_size
            )
        if hasattr(tower, "num_grid_per_side"):
            how = {"mode": tower.interpolation_mode, "align_corners": tower.interpolation_align_corners}
            tensors["interp_indices"], tensors["interp_weights"] = (
                vision_utils.get_vision_interpolation_indices_and_weights(
                    grids, tower.num_grid_per_side, spatial_merge_size=merge, **how
                )
            )
        plans: dict[str, Any] = {f"max_{name}": int(at.diff().max()) for name, at in borders.items()}
        if isinstance(tower.blocks[0].attn, _BatchedWindows):
            plans |= {f"cu_{name}s": plan_windows(at, device) for name, at in borders.items()}
        else:
            tensors |= {f"cu_{name}s": at for name, at in borders.items()}
        return plans | {name: moved(tensor, device) for name, tensor in tensors.items()}

    def embed(self, ids: Tensor) -> Tensor:
        """Ids -> (..., C)."""
        return self.model.get_input_embeddings()(ids)

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V) logits."""
        return self.model.lm_head(hidden)

    def prompt_embeds(self, prompts: FastPrompts) -> Tensor:
        """(P, L, C): words, and the features of images at their places."""
        embeds = self.embed(prompts.ids)
        at = self.is_image(prompts.ids)[..., None].expand_as(embeds)
        return embeds.masked_scatter(at, torch.cat(prompts.visual)[:, : embeds.shape[-1]].to(embeds.dtype))

    def deep_features(self, prompts: FastPrompts, following: int = 0) -> dict[str, Any]:
        """What Qwen3-VL adds to its first layers at visual tokens of prompts, before so many tokens `following`."""
        _, *deep = torch.cat(prompts.visual).split(self.width, dim=1)
        if not deep:
            return {}
        at = F.pad(self.is_image(prompts.ids), (0, following))
        return {"visual_pos_masks": at, "deepstack_visual_embeds": deep}

    def read(
        self, embeds: Tensor, positions: Tensor, sees: View | Tensor, *, last: int | None = None, **features: Any
    ) -> Tensor:
        """The language model.

        Args:
            embeds: (P, S, C).
            positions: (3, P, S) M-RoPE positions.
            sees: What tokens see; a (P, S) bool mask of real tokens where the back end of attention is not ours.
            last: How many tokens at the end are wanted: the end of the prompt and all behind it; None for all.
            **features: As `deep_features` gives them.

        Returns:
            (P, S, C) hidden states behind the last norm; of the last tokens alone where they are wanted alone.
        """
        if last is not None:
            if not self.shares_prompts:
                return self.read(embeds, positions, sees, **features)[:, -last:]
            features["last"] = last
        seen = {"attention_mask": sees} if isinstance(sees, Tensor) else {"attention_mask": None, "view": sees}
        output = self.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=False, **seen, **features)
        return output.last_hidden_state

    def sampling_attention(self, on: bool) -> None:
        """Whether what follows samples, for which another back end gives way: it has no masks of packed responses."""
        if not self.shares_prompts:
            self._attend_by(_OWN if on else self.attention)

    @contextmanager
    def own_attention(self) -> Iterator[None]:
        """Inside, the language model attends as views say; then as before."""
        before = self.text_config._attn_implementation
        self._attend_by(_OWN)
        try:
            yield
        finally:
            self._attend_by(before)

    @contextmanager
    def before_last_norm(self, seen: Callable[[Tensor], None]) -> Iterator[None]:
        """Inside, `seen` gets the (P, S, C) hidden states that each reading gives to the last norm."""
        hook = self.language_model.norm.register_forward_pre_hook(lambda _, states: seen(states[0]))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def before_layer(self, number: int, through: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside, the (P, S, C) hidden states that each reading gives to a layer go through a function first."""
        layer = self.language_model.layers[number]
        hook = layer.register_forward_pre_hook(lambda _, given: (through(given[0]), *given[1:]))
        try:
            yield
        finally:
            hook.remove()

    def rows(self, ids: Tensor) -> Tensor:
        """What hidden states behind the last norm are multiplied by for the logit of an id: ids -> (..., C)."""
        return self.model.lm_head.weight[ids]

    def directions(self, ids: Tensor) -> Tensor:
        """What hidden states, divided by their RMS, are multiplied by for the logit of an id: ids -> (..., C)."""
        return self.rows(ids) * self.language_model.norm.weight

    def rms(self, states: Tensor) -> Tensor:
        """(..., C) -> (..., 1), as the last norm divides by it."""
        return (states.square().mean(-1, keepdim=True) + self.text_config.rms_norm_eps).sqrt()

    def require_attention_rows(self) -> None:
        """Check that each layer attends to all tokens before it.

        Raises:
            ValueError: One does not; the line names the model.
        """
        kinds = getattr(self.text_config, "layer_types", None) or ()
        for layer, kind in enumerate(kinds):
            if kind != "full_attention":
                raise ValueError(
                    f"{self.model.config.model_type}: layer {layer} is {kind}, which has no attention rows over all tokens, "
                    "so nothing can be attributed through it: take Qwen2.5-VL or Qwen3-VL"
                )

    def _attend_by(self, name: str) -> None:
        self.text_config._attn_implementation = name


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """A decoder layer taken apart: its linear layers, adapters in place, and the weights of its norms.

    Args:
        queries_keys_values: Linear layers of the same input.
        head_norms: Weights of the norms of queries and of keys, (D,) each; none where there are no such norms.
        out: Behind the attention.
        gate_up: Linear layers of the same input.
        down: Behind the gated product.
        attention_norm: (C,) weight of the norm before the attention.
        mlp_norm: (C,) weight of the norm before the MLP.
        eps: Of all norms.
    """

    queries_keys_values: tuple[nn.Module, nn.Module, nn.Module]
    head_norms: tuple[Tensor, ...]
    out: nn.Module
    gate_up: tuple[nn.Module, nn.Module]
    down: nn.Module
    attention_norm: Tensor
    mlp_norm: Tensor
    eps: float

    @property
    def linears(self) -> tuple[nn.Module, ...]:
        return (*self.queries_keys_values, self.out, *self.gate_up, self.down)


def shown_size(image_processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """The (H, W) to which an image processor resizes an image of (H, W) pixels."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(
        *size,
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=image_processor.size["shortest_edge"],
        max_pixels=image_processor.size["longest_edge"],
    )
    return height, width


def vision_tower(model: Any) -> Any:
    """The vision tower of a model, its projection included."""
    return model.model.visual


def language_model(model: Any) -> Any:
    """Embeddings, decoder layers and last norm of a model."""
    return model.model.language_model


def replace_norms(model: Any) -> None:
    """Put ours in place of transformers' norms, which keep several float32 copies for the gradient."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ in _NORMS:
                setattr(parent, name, RMSNorm(child.weight, child.variance_epsilon).train(child.training))


class _FlatPatches(nn.Module):
    """The patch embedding as a matrix product: its convolution sees each patch once, and 3-D convolutions are slow."""

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj = embedding.proj

    def forward(self, patches: Tensor) -> Tensor:
        """(S, 3 x 2 x 14 x 14) pixels of each patch -> (S, C)."""
        weight = self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.proj.bias)


class _BatchedWindows(nn.Module):
    """The attention of a vision block, all its windows of one size in one call."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = attention.qkv, attention.proj, attention.num_heads

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Windows | Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """(S, C) -> (S, C); `cu_seqlens` are the windows, or where the model is called past `Backbone` their borders."""
        windows = (
            cu_seqlens if isinstance(cu_seqlens, Windows) else plan_windows(cu_seqlens.cpu(), hidden_states.device)
        )
        query, key, value = self.qkv(hidden_states).unflatten(1, (3, self.heads, -1)).unbind(1)  # (S, H, D)
        query, key = (rotate(part, *position_embeddings) for part in (query, key))
        return self.proj(windows.attention(query, key, value).flatten(1))


def _register() -> None:
    """Make our attention function known to transformers, with the masks of its sdpa for calls without a view."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_OWN, _attend)
    AttentionMaskInterface.register(_OWN, sdpa_mask)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    view: View | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: what a view says, or else its own sdpa."""
    if view is not None:
        return view.attend(module.layer_idx, query, key, value, scaling), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
