"""A policy whose weights are spread over the processes: FSDP2, for a model that is too large beside its activations.

Between calls each process holds its share. `score` gathers a decoder layer at a time, so that no process ever holds all
of them; `sample` gathers each layer once and keeps it until the last token, since gathering anew for each token would
take longer than all else. So sampling needs room for the whole language model, and training on the samples does not.

The number of gatherings is the same on every rank whatever the lengths: one a layer in `score`, in its backward pass and
in `sample`.

While loading, weights stay in their files, mapped into memory, and each process reads its share of a block before it turns
to the next one. So the main memory of a machine holds the files once, as pages that it may drop, and one share a process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed import all_gather_object
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from lightning_sal.files.loading import refuse_non_finite
from lightning_sal.policy.adapters import adapters_off
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.loading import DTYPES
from lightning_sal.policy.policy import in_one_piece
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samples import Rollout


class ShardedPolicy(FastPolicy):
    """A policy in shards.

    | weights | with LoRA | without |
    |---|---|---|
    | language model | shards | shards |
    | adapters | whole on every rank; who trains them averages their gradients | |
    | vision tower, frozen | whole: it is small, and a rank may read its features from a cache instead | the same |
    | vision tower, trained | whole, like the adapters | shards |

    Args:
        config: What to load and what to train.
        mesh: One-dimensional, over the processes that share the weights.
    """

    owns_weights = False

    def __init__(self, config: PolicyConfig, mesh: DeviceMesh) -> None:
        super().__init__(config, as_stored=True)
        vision = self.backbone.vision
        lora = config.lora is not None
        adapters = {p for p in self.backbone.language_model.parameters() if lora and p.requires_grad}
        whole = adapters | (set(vision.parameters()) if lora or not config.train_vision else set())
        for block in (*vision.blocks, *self.backbone.language_model.layers):
            cast(block, DTYPES[config.dtype], adapters)
            if not whole.issuperset(block.parameters()):
                fully_shard(block, mesh=mesh, ignored_params=whole)
        # What is left (embeddings, output layer, norms) is gathered around whole methods, in which it is called freely.
        cast(self, DTYPES[config.dtype], adapters)
        fully_shard(self, mesh=mesh, ignored_params=whole, reshard_after_forward=True)
        refuse_faulty_shares(self, f"policy model '{config.model}'", mesh)
        for method in ("encode", "score", "score_tokens", "sample", "attribute"):
            register_fsdp_forward_method(self, method)

    @torch.no_grad()
    def sample(self, *args: Any, **kwargs: Any) -> Rollout:
        """As `Policy.sample`, on whole layers."""
        model = self.backbone.language_model
        layers = [layer for layer in model.layers if isinstance(layer, FSDPModule)]
        try:
            gatherings: list[Any] = [layer.unshard(async_op=True) for layer in layers]
            for gathering in gatherings:
                gathering.wait()
            with without_hooks(model):  # which would ask at each token and layer whether it is gathered
                return super().sample(*args, **kwargs)
        finally:
            for layer in layers:
                layer.reshard()

    def stream(self, prompts: Prompts, max_new_tokens: int) -> Generator[str, None, Rollout]:
        """As `Policy.stream`, in one piece: between two tokens others may need it, and then its layers are not whole."""
        return (yield from in_one_piece(self, prompts, max_new_tokens))


class PartitionedPolicy(FastPolicy):
    """A policy whose decoder layers DeepSpeed's ZeRO stage 3 cuts up once it is made; all else stays whole.

    Args:
        config: What to load and what to train; with adapters.
        device: Where what stays whole goes.

    Raises:
        ValueError: If there are none. Embeddings and output layer would be cut up too, and they are called more often
            on one rank than on another, which stage 3 would wait for without end.
    """

    owns_weights = False

    def __init__(self, config: PolicyConfig, device: torch.device) -> None:
        super().__init__(config)
        if config.lora is None:
            raise ValueError(
                "ZeRO stage 3 needs adapters (model.policy.lora): to train all weights take FSDP2 or stage 2"
            )
        for parent, name in (
            (self.model, "lm_head"),
            (self.backbone.language_model, "embed_tokens"),
            (self.model.model, "visual"),
        ):
            if not any(p.requires_grad for p in getattr(parent, name).parameters()):
                hide(parent, name, device)

    @torch.no_grad()
    def sample(self, *args: Any, **kwargs: Any) -> Rollout:
        """As `Policy.sample`, on whole layers."""
        import deepspeed  # pyright: ignore[reportMissingImports]  optional

        layers = self.backbone.language_model
        with deepspeed.zero.GatheredParameters(list(layers.parameters())), without_hooks(layers):
            return super().sample(*args, **kwargs)

    def stream(self, prompts: Prompts, max_new_tokens: int) -> Generator[str, None, Rollout]:
        """As `Policy.stream`, in one piece: between two tokens others may need it, and then its layers are not whole."""
        return (yield from in_one_piece(self, prompts, max_new_tokens))

    @contextmanager
    def reference(self) -> Iterator[None]:
        """As `Policy.reference`; peft's own way reads weights at a point where DeepSpeed would keep them gathered."""
        with adapters_off(self):
            yield


def cast(module: nn.Module, dtype: torch.dtype, adapters: Set[nn.Parameter]) -> None:
    """Give the weights of a module a dtype, one at a time; adapters keep theirs."""
    for weight in module.parameters():
        if weight.dtype != dtype and weight.is_floating_point() and weight not in adapters:
            weight.data = weight.data.to(dtype)


def refuse_faulty_shares(module: nn.Module, source: str, mesh: DeviceMesh) -> None:
    """`refuse_non_finite` of all weights, of which each process looks at its share.

    Raises:
        ValueError: On all processes of the mesh, where one of them has found NaN or infinity.
    """
    found: list[str | None] = [None] * mesh.size()
    try:
        shares = {n: p.to_local() if isinstance(p, DTensor) else p for n, p in module.named_parameters()}
        refuse_non_finite(shares, source)
        own = None
    except ValueError as error:
        own = str(error)
    all_gather_object(found, own, group=mesh.get_group())
    if faults := list(filter(None, found)):
        raise ValueError(faults[0])


def hide(parent: nn.Module, name: str, device: torch.device) -> None:
    """Move `parent.name` and make it an attribute like any other: DeepSpeed, which takes all modules, finds it no more."""
    if isinstance(module := parent._modules.get(name), nn.Module):
        del parent._modules[name]
        parent.__dict__[name] = module.to(device)


@contextmanager
def without_hooks(model: nn.Module) -> Iterator[None]:
    """Inside, calling a module runs its forward alone."""
    kept = [(module, module._forward_pre_hooks, module._forward_hooks) for module in model.modules()]
    for module, *_ in kept:
        module._forward_pre_hooks, module._forward_hooks = OrderedDict(), OrderedDict()
    try:
        yield
    finally:
        for module, before, after in kept:
            module._forward_pre_hooks, module._forward_hooks = before, after
