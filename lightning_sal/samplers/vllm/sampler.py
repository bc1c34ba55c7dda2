"""The sampler: whole rollouts from servers that hold the policy's adapters.

Legend: P prompts, G responses a prompt, B = P G.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.policy import Policy, pad_right
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samplers.base import Generators
from lightning_sal.samplers.vllm.adapters import adapter_weights, fingerprint, save
from lightning_sal.samplers.vllm.answers import check_prompt, read_responses, settings
from lightning_sal.samplers.vllm.command import serve_command
from lightning_sal.samplers.vllm.pictures import conversation
from lightning_sal.samplers.vllm.server import Server
from lightning_sal.samples import ImageGroup, Rollout

T = TypeVar("T")


class VLLMSampler:
    """Samples by vLLM servers, which run in an environment of their own and hold the same model folder.

    Whenever the adapters have changed, which is once an optimisation step however many rounds a step samples, rank 0
    writes them into a new folder in peft's form, has each server load it under a new name (so that no
    cached key or value of former weights is used), and drops the former one. Each prompt is one request to
    `/v1/chat/completions` of one of the servers, in turn, with its images as PNG, resized as the policy's processor does
    it, so that the server's own resize changes nothing. The server's prompt token ids come back and must equal the
    policy's, and so must the name of the adapters; the sampling settings are stated in full. Ids that the policy suppresses
    get a `logit_bias` of -100, and a response with one is refused.

    Servers must run with `--logprobs-mode processed_logprobs`, so that temperature and bias are in the
    log-probabilities; that is tested once. Even so their kernels and precision are others than the trainer's, so the loss
    weighs each token by min(cap, pi_old / pi_server): see `sampler_ratio_cap` and `train/sampler_ratio/...`.

    A server that is started anew in mid-training is waited for, and told the adapters again. The policy needs LoRA, with its
    adapters whole on each rank, as under DDP and FSDP2. `tests/samplers/live.sh` runs all this against a real server.

    Args:
        adapters: Folder for the adapters, at the same path for all ranks and all servers.
        url: Address of the server, or a list with the address of each replica, on a trusted network; there is no password.
        timeout_s: Seconds that a server may take to answer a request, or to come back, > 0.
        connections: Requests that are under way at once on each rank, >= 1.
        sleep: Wake the servers before sampling and put them to sleep after it, where they share the GPU that trains.
    """

    exact = False

    def __init__(
        self,
        adapters: str,
        url: str | list[str] = "http://127.0.0.1:8000",
        timeout_s: float = 600.0,
        connections: int = 32,
        sleep: bool = False,
    ) -> None:
        if timeout_s <= 0 or connections < 1:
            raise ValueError(f"timeout_s {timeout_s} must be above 0 and connections {connections} at least 1")
        urls = [url] if isinstance(url, str) else url
        if not urls or len(set(urls)) < len(urls):
            raise ValueError(f"url must name one server or several, each once: {urls}")
        self.adapters = Path(adapters).resolve()
        self.servers = [Server(one, timeout_s) for one in urls]
        self.connections, self.sleep = connections, sleep
        self._loaded: tuple[str, list[int]] | None = None  # name and fingerprint of what rank 0 had loaded last

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
            ConnectionError: If a server is away, too slow, or answers what cannot be learnt from; it says what to do.
            ValueError: If the policy has no LoRA, or not whole on each rank, or takes the general path.
        """
        if not isinstance(policy, FastPolicy):
            raise ValueError(
                f"VLLMSampler shows servers images as Qwen's processor resizes them, and '{policy.config.model}' takes the "
                "general path: let the policy sample itself (model.sampler null)"
            )
        if policy.config.lora is None:
            raise ValueError("VLLMSampler tells its server adapters and the policy has none: give model.policy.lora")
        sources = [generator] if isinstance(generator, torch.Generator) else generator
        share = (len(prompts) // len(sources),)
        seeds = [s for g in sources for s in torch.randint(2**62, share, generator=g, device=g.device).tolist()]
        for server in self.servers:
            server.given_up.clear()
        try:
            if self.sleep and policy.device.type == "cuda":
                torch.cuda.empty_cache()  # what the trainer holds and does not use, the servers take
            folder = self.adapters / _together(lambda: self._prepare(policy))
            found = self._ask(policy, folder, groups, prompts, max_new_tokens, responses, temperature, seeds)
            if self.sleep:
                _together(lambda: self._all(Server.sleep))
        except ConnectionError as error:
            images = max(len(group.images) for group in groups)
            command = serve_command(policy, images, max_new_tokens, sleep=self.sleep)
            raise ConnectionError(f"{error}; it should run as: {command}") from error
        tokens, mask = pad_right([ids for ids, _ in found], policy.pad_id, policy.device)
        logp = torch.zeros(tokens.shape, device=policy.device)
        logp[mask] = torch.tensor([value for _, values in found for value in values], device=policy.device)
        truncated = torch.tensor([ids[-1] not in policy.eos_ids for ids, _ in found], device=policy.device)
        return policy.rollout(policy.decode(tokens, mask), tokens, mask, logp, truncated)

    def _ask(
        self,
        policy: Policy,
        folder: Path,
        groups: Sequence[ImageGroup],
        prompts: Prompts,
        most: int,
        responses: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> list[tuple[list[int], list[float]]]:
        """Token ids and log-probabilities of the B responses."""
        suppressed = policy.suppressed.cpu()
        different = responses if temperature > 0 else 1  # vLLM refuses to say the likeliest answer more than once
        question = {
            "n": different,
            "max_completion_tokens": most,
            "stop_token_ids": list(policy.eos_ids),
            "logit_bias": {str(token): -100.0 for token in suppressed.nonzero().flatten().tolist()},
            **settings(temperature),
        }
        first = _rank() * len(prompts)

        def ask(row: int) -> list[tuple[list[int], list[float]]]:
            server = self.servers[(first + row) % len(self.servers)]
            messages = conversation(policy, groups[row])
            answer = server.complete(folder, question | {"messages": messages, "seed": seeds[row]})
            try:
                check_prompt(answer, prompts.ids[row][prompts.mask[row]].tolist())
                found = read_responses(answer, different, most, policy.eos_ids, suppressed)
            except ValueError as error:
                raise server.error(f"{groups[row].key}: {error}") from error
            return found * (responses // different)

        pool = ThreadPoolExecutor(min(self.connections, len(prompts)))
        try:
            return [response for found in pool.map(ask, range(len(prompts))) for response in found]
        except BaseException:  # Ctrl-C too: Python does not end before its threads, which may wait for a server
            for server in self.servers:
                server.given_up.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, policy: Policy) -> str:
        """Name under which the servers, awake, hold the policy's adapters as they are now."""
        if self.sleep:
            self._all(Server.wake)
        weights = adapter_weights(policy)
        mark = fingerprint(weights)
        if self._loaded is not None and self._loaded[1] == mark:
            return self._loaded[0]
        folder = self.adapters / f"lightning-sal-{uuid.uuid4().hex[:12]}"
        save(policy, weights, folder)
        try:
            self._all(lambda server: server.load(folder))
            self._all(lambda server: server.check_log_probs(folder, policy.eos_ids[0]))
        except OSError:
            shutil.rmtree(folder)
            raise
        former, self._loaded = self._loaded, (folder.name, mark)
        if former is not None:
            self._all(lambda server: server.unload(former[0]))
            shutil.rmtree(self.adapters / former[0])
        return folder.name

    def _all(self, action: Callable[[Server], Any]) -> None:
        """Do something with each server, at once."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(action, self.servers))


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _together(action: Callable[[], T]) -> T:
    """What rank 0's action returns or raises, on all ranks: it waits for them, and they for it."""
    if not torch.distributed.is_initialized():
        return action()
    outcome: list[Any] = [None, None]
    torch.distributed.barrier()
    if _rank() == 0:
        try:
            outcome[0] = action()
        except (OSError, ValueError) as error:  # ConnectionError is an OSError: no rank is left waiting
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
