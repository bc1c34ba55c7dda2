"""The command that starts a server, which errors end in."""

from __future__ import annotations

import json

from lightning_sal.policy.policy import Policy
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values that --max-lora-rank takes


def serve_command(policy: Policy, images: int, max_new_tokens: int, *, sleep: bool = False) -> str:
    """The command that starts a server for a policy.

    Args:
        policy: It has LoRA.
        images: Most images of a prompt, >= 1.
        max_new_tokens: Limit of a response.
        sleep: Whether the server shares the GPU that trains.
    """
    config = policy.config
    assert config.lora is not None
    rank = next((rank for rank in _RANKS if rank >= config.lora.rank), config.lora.rank)
    # vLLM refuses to start with more than the model's own positions.
    length = min(config.max_prompt_tokens + max_new_tokens, policy.model.config.text_config.max_position_embeddings)
    size = policy.processor.image_processor.size  # in pixels, whatever the names say
    limits = {"size": {"shortest_edge": size.shortest_edge, "longest_edge": size.longest_edge}}
    limited = config.min_pixels is not None or config.max_pixels is not None
    words = [
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
        "VLLM_SERVER_DEV_MODE=1" if sleep else "",
        f"vllm serve {EMBEDDED_POLICIES.get(config.model, config.model)} --dtype {config.dtype}",
        f"--enable-lora --max-lora-rank {rank}",
        f"--limit-mm-per-prompt '{json.dumps({'image': images, 'video': 0})}'",
        f"--mm-processor-kwargs '{json.dumps(limits)}'" if limited else "",
        f"--logprobs-mode processed_logprobs --max-model-len {length}",
        "--enable-sleep-mode --gpu-memory-utilization 0.4" if sleep else "",
    ]
    return " ".join(word for word in words if word)
