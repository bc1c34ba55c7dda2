"""What a request asks of vLLM beside the conversation, and what its answer must be to be learnt from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

_LEAST, _MOST = -9000.0, 1e-3  # of a log-probability: vLLM writes -9999 where it has none, and logits if told to


def settings(temperature: float) -> dict[str, Any]:
    """All that shapes the distribution, since a server takes what is not stated from `generation_config.json`."""
    return {
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": True,
        "top_logprobs": 0,
        "return_token_ids": True,
    }


def check_prompt(answer: dict[str, Any], prompt: list[int]) -> None:
    """Compare the prompt that the server read, images in place, with the policy's own.

    Raises:
        ValueError: If they differ, since log-probabilities would be of another question.
    """
    read = answer.get("prompt_token_ids")
    if not read:
        raise ValueError("the answer has no prompt_token_ids: use vLLM 0.10.2 or later")
    if read != prompt:
        at = next(
            (i for i, (a, b) in enumerate(zip(read, prompt, strict=False)) if a != b), min(len(read), len(prompt))
        )
        raise ValueError(
            f"the server reads a prompt of {len(read)} tokens where the policy reads {len(prompt)}, other from token {at} "
            "on: serve the very folder that is trained, with its own chat template, and keep policy.min_pixels and "
            "max_pixels within those of its image processor"
        )


def read_responses(
    answer: dict[str, Any], responses: int, most: int, eos: Sequence[int], suppressed: Tensor | None = None
) -> list[tuple[list[int], list[float]]]:
    """Token ids and log-probabilities of each response, the end-of-turn token included.

    Args:
        answer: Of `/v1/chat/completions`.
        responses: How many there must be.
        most: Limit of response tokens; one without an end must have so many.
        eos: Ids that end a response.
        suppressed: (V,) bool, True on ids that a response must not hold; null allows all.

    Raises:
        ValueError: If anything is missing or cannot be.
    """
    choices: list[dict[str, Any]] = sorted(answer.get("choices") or [], key=lambda choice: choice["index"])
    if len(choices) != responses:
        raise ValueError(f"the answer has {len(choices)} responses, not {responses}")
    found = []
    for choice in choices:
        ids: list[int] = choice.get("token_ids") or []
        content: list[dict[str, float]] = (choice.get("logprobs") or {}).get("content") or []
        logp = [part["logprob"] for part in content if _LEAST < part.get("logprob", -math.inf) < _MOST]
        if not ids or len(ids) != len(logp):
            raise ValueError(
                f"a response has {len(ids)} token ids and {len(logp)} log-probabilities: use vLLM >= 0.10.2"
            )
        ends = [at for at, token in enumerate(ids) if token in eos]
        if ends != [len(ids) - 1] and (ends or len(ids) != most):
            raise ValueError(
                f"a response of {len(ids)} tokens (limit {most}) does not end as the policy's would, its finish_reason is "
                f"{choice.get('finish_reason')}: raise --max-model-len, or serve the policy's generation_config.json"
            )
        if suppressed is not None and (max(ids) >= len(suppressed) or bool(suppressed[ids].any())):
            raise ValueError("a response says an id that logit_bias suppresses: serve the very folder that is trained")
        found.append((ids, logp))
    return found
