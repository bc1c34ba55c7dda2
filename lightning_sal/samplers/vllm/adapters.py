"""The policy's adapters: whether they have changed, and as the folder that vLLM loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_sal.policy.policy import Policy

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a number -> integers of that size


def adapter_weights(policy: Policy) -> dict[str, Tensor]:
    """The weights of LoRA by the names that peft saves them under.

    Raises:
        ValueError: If they do not stand whole on this rank.
    """
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(policy.net, save_embedding_layers=False)
    if any(not weight.numel() for weight in weights.values()):
        raise ValueError(
            "VLLMSampler needs adapters that are whole on each rank, as under DDP, FSDP2 and ZeRO-2: take one"
        )
    return weights


def fingerprint(weights: Mapping[str, Tensor]) -> list[int]:
    """The sum of each weight's bits, read as integers: no update leaves all of them as they were.

    It reads the weights where they are and waits for their device once. PyTorch's own counter, `Tensor._version`, misses
    what fused optimisers and writes through `.data` (DeepSpeed's) change.
    """
    sums = [w.detach().view(_BITS[w.element_size()]).sum(dtype=torch.int64) for w in weights.values()]
    return torch.stack(sums).tolist()


def save(policy: Policy, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a folder as peft does, weights in the dtype of the policy, to which vLLM would round them itself."""
    from safetensors.torch import save_file

    dtype = getattr(torch, policy.config.dtype)
    folder.mkdir(parents=True)
    policy.net.peft_config[policy.net.active_adapter].save_pretrained(str(folder))
    state = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in weights.items()}
    save_file(state, folder / "adapter_model.safetensors")
