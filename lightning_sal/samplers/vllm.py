"""Responses from a vLLM server that is told the policy's adapters whenever they change.

Legend: P prompts, G responses a prompt, B = P G.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import urllib.request
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch
from torch import Tensor

from lightning_sal.policy.chat import chat
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.policy import Policy, pad_right
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samplers.base import Generators
from lightning_sal.samples import ImageGroup, Message, Rollout
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values that --max-lora-rank takes
_LEAST, _MOST = -9000.0, 1e-3  # of a log-probability: vLLM writes -9999 where it has none, and logits if told to
# The server stands beside the trainer: never ask a proxy for it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class VLLMSampler:
    """Samples by a vLLM server, which runs in an environment and on a GPU of its own and holds the same model folder.

    Whenever the adapters have changed, which is once an optimisation step however many rounds a step samples, rank 0
    writes them by peft's own `save_pretrained` into a new folder, has the server load it under a new name (so that no
    cached key or value of former weights is used), and drops the former one. Each prompt is one request to
    `/v1/chat/completions` with its images as PNG, resized as the policy's processor does it, so that the server's own
    resize changes nothing. The server's prompt token ids come back and must equal the
    policy's; the sampling settings are stated in full, since a server takes what is not stated from the model's
    `generation_config.json`. Ids that the policy suppresses get a `logit_bias` of -100, and a response with one is refused.

    The server must run with `--logprobs-mode processed_logprobs`, so that temperature and bias are in the
    log-probabilities; that is tested once. Even so its kernels and precision are others than the trainer's, so the loss
    weighs each token by min(cap, pi_old / pi_server): see `sampler_ratio_cap` and `train/sampler_ratio/...`.

    Fields of requests and answers were read in the sources of vLLM 0.10.2 and 0.33.0. The policy needs LoRA, with its
    adapters whole on each rank, as under DDP.

    Args:
        adapters: Folder for the adapters, at the same path on the server's machine.
        url: Address of the server, or of its host on a trusted network; it has no password here.
        timeout_s: Seconds that the server may take to answer a request, > 0.
        connections: Requests that are under way at once on each rank, >= 1.
    """

    exact = False

    def __init__(
        self,
        adapters: str,
        url: str = "http://127.0.0.1:8000",
        timeout_s: float = 600.0,
        connections: int = 32,
    ) -> None:
        if timeout_s <= 0 or connections < 1:
            raise ValueError(f"timeout_s {timeout_s} must be above 0 and connections {connections} at least 1")
        self.adapters = Path(adapters).resolve()
        self.url, self.timeout_s, self.connections = url.rstrip("/"), timeout_s, connections
        self._loaded: tuple[str, dict[str, Tensor]] | None = None  # name and weights of what rank 0 had loaded last

    def sample(
        self,
        policy: Policy,
        groups: Sequence[ImageGroup],
        prompts: Prompts,
        *,
        max_new_tokens: int,
        responses: int,
        temperature: float,
        generator: Generators,
    ) -> Rollout:
        """See `Sampler.sample`.

        Raises:
            ConnectionError: If the server is away, too slow, or answers what cannot be learnt from; it says what to do.
            ValueError: If the policy has no LoRA.
        """
        if policy.config.lora is None:
            raise ValueError("VLLMSampler tells its server adapters and the policy has none: give model.policy.lora")
        command = serve_command(policy.config, max(len(group.images) for group in groups), max_new_tokens)
        server = _Server(self.url, self.timeout_s, command)
        suppressed = policy.suppressed.cpu()
        settings = {
            "model": self._adapter_name(policy, server),
            "n": responses,
            "max_completion_tokens": max_new_tokens,
            "stop_token_ids": list(policy.eos_ids),
            "logit_bias": {str(token): -100.0 for token in suppressed.nonzero().flatten().tolist()},
            **_settings(temperature),
        }
        sources = [generator] if isinstance(generator, torch.Generator) else generator
        share = (len(prompts) // len(sources),)
        seeds = [s for g in sources for s in torch.randint(2**62, share, generator=g, device=g.device).tolist()]

        def ask(row: int) -> list[tuple[list[int], list[float]]]:
            question = settings | {"messages": _messages(policy, groups[row]), "seed": seeds[row]}
            answer = server.ask("/v1/chat/completions", question)
            try:
                check_prompt(answer, prompts.ids[row][prompts.mask[row]].tolist())
                return read_responses(answer, responses, max_new_tokens, policy.eos_ids, suppressed)
            except ValueError as error:
                raise server.error(f"{groups[row].key}: {error}") from error

        pool = ThreadPoolExecutor(min(self.connections, len(prompts)))
        try:
            found = [response for answers in pool.map(ask, range(len(prompts))) for response in answers]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        tokens, mask = pad_right([ids for ids, _ in found], policy.pad_id, policy.device)
        logp = torch.zeros(tokens.shape, device=policy.device)
        logp[mask] = torch.tensor([value for _, values in found for value in values], device=policy.device)
        truncated = torch.tensor([ids[-1] not in policy.eos_ids for ids, _ in found], device=policy.device)
        return policy.rollout(policy.decode(tokens, mask), tokens, mask, logp, truncated)

    def _adapter_name(self, policy: Policy, server: _Server) -> str:
        """Name under which the server holds the policy's adapters as they are now; all ranks leave together."""
        if not torch.distributed.is_initialized():
            return self._push(policy, server)
        outcome: list[Any] = [None, None]
        if torch.distributed.get_rank() == 0:
            try:
                outcome[0] = self._push(policy, server)
            except OSError as error:  # ConnectionError is one: no rank is left waiting
                outcome[1] = error
        torch.distributed.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def _push(self, policy: Policy, server: _Server) -> str:
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(policy.net, save_embedding_layers=False)
        weights = {name: weight.detach().to("cpu", copy=True) for name, weight in state.items()}
        if self._loaded is not None and all(torch.equal(w, self._loaded[1][n]) for n, w in weights.items()):
            return self._loaded[0]
        name = f"lightning-sal-{uuid.uuid4().hex[:12]}"
        folder = self.adapters / name
        folder.mkdir(parents=True)
        try:
            policy.net.save_pretrained(str(folder), save_embedding_layers=False)
            server.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
            if self._loaded is None:
                check_log_probs(server, name, policy.eos_ids[0])
        except OSError:
            shutil.rmtree(folder)
            raise
        former, self._loaded = self._loaded, (name, weights)
        if former is not None:
            server.post("/v1/unload_lora_adapter", {"lora_name": former[0]})
            shutil.rmtree(self.adapters / former[0])
        return name


@dataclass(frozen=True)
class _Server:
    url: str
    timeout_s: float
    command: str

    def error(self, what: str) -> ConnectionError:
        return ConnectionError(f"vLLM at {self.url}: {what}; it should run as: {self.command}")

    def post(self, path: str, question: dict[str, Any]) -> bytes:
        """What the server answers to a JSON body."""
        request = urllib.request.Request(
            self.url + path, json.dumps(question).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                return answer.read()
        except HTTPError as error:
            text = " ".join(error.read().decode(errors="replace").split())[:300]
            raise self.error(f"{path} answered {error.code} {text}") from error
        except TimeoutError as error:
            raise self.error(f"{path} gave no answer in {self.timeout_s:g} s, raise timeout_s if it is busy") from error
        except (OSError, HTTPException) as error:
            raise self.error(f"{path} failed: {getattr(error, 'reason', error)}") from error

    def ask(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        """The same, read as a JSON object."""
        answer = self.post(path, question)
        try:
            return dict(json.loads(answer))
        except (TypeError, ValueError) as error:
            raise self.error(f"{path} answered what is no JSON object: {answer[:80]!r}") from error


def serve_command(config: PolicyConfig, images: int, max_new_tokens: int) -> str:
    """The command that starts a server for a policy.

    Args:
        config: The policy; its `lora` is not None.
        images: Most images of a prompt, >= 1.
        max_new_tokens: Limit of a response.
    """
    assert config.lora is not None
    rank = next((rank for rank in _RANKS if rank >= config.lora.rank), config.lora.rank)
    folder = EMBEDDED_POLICIES.get(config.model, config.model)
    return (
        f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {folder} --dtype {config.dtype} --enable-lora "
        f'--max-lora-rank {rank} --limit-mm-per-prompt \'{{"image": {images}, "video": 0}}\' '
        f"--logprobs-mode processed_logprobs --max-model-len {config.max_prompt_tokens + max_new_tokens}"
    )


def check_log_probs(server: _Server, model: str, token: int) -> None:
    """Ask for one token that a bias of +100 makes certain: its log-probability is 0 only if bias counts in it.

    Raises:
        ConnectionError: If it does not, as with vLLM's default, the log-probabilities of the model's raw output.
    """
    messages = chat([Message("user", "?")])
    question = {"model": model, "messages": messages, "max_completion_tokens": 1, "logit_bias": {str(token): 100.0}}
    answer = server.ask("/v1/chat/completions", question | _settings(1.0))
    try:
        ((_, (logp,)),) = read_responses(answer, 1, 1, (token,))
    except ValueError as error:
        raise server.error(f"one certain token: {error}") from error
    if abs(logp) > 1e-3:
        raise server.error(
            f"a token that logit_bias makes certain has log-probability {logp:.3f}, not 0: the server leaves temperature "
            "and bias out, so give it --logprobs-mode processed_logprobs"
        )


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


def _settings(temperature: float) -> dict[str, Any]:
    """All that shapes the distribution, and what must come back."""
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


def _messages(policy: Policy, group: ImageGroup) -> list[dict[str, Any]]:
    """The conversation of a group as the server takes it, its images as PNG in the size in which the policy reads them."""
    processor, images = policy.processor.image_processor, []
    for image in policy.shown(group):
        shown = resized(image, processor)
        if _size(shown, processor) != [*shown.shape[:2]]:
            here, there = (f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (image, shown))
            raise ValueError(
                f"{group.key}: an image of {here} pixels has {there} for the policy, which a server would resize again: "
                "leave more room between policy.min_pixels and max_pixels"
            )
        images.append({"type": "image_url", "image_url": {"url": _png(shown)}})
    return chat(policy.messages(group), images)


def resized(image: Tensor, processor: Any) -> Tensor:
    """An image as an image processor resizes it.

    Args:
        image: (H, W, 3) uint8.
        processor: Of the policy.

    Returns:
        (H', W', 3) uint8.
    """
    from torchvision.transforms.v2 import functional as vision
    from transformers.image_utils import PILImageResampling

    mode = vision.InterpolationMode[PILImageResampling(processor.resample).name]
    return vision.resize(image.permute(2, 0, 1), _size(image, processor), mode).permute(1, 2, 0)


def _size(image: Tensor, processor: Any) -> list[int]:
    """Height and width to which a processor resizes an image (H, W, 3)."""
    (grid,) = processor(image.permute(2, 0, 1), return_tensors="pt")["image_grid_thw"]
    return (grid[1:] * processor.patch_size).tolist()


def _png(image: Tensor) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.contiguous().numpy()).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
