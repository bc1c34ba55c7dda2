"""A model on this machine, by the policy class: requests that wait at the same time are answered as one batch."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_sal.clients.replies import Failure, Reply
from lightning_sal.clients.requests import Request
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.make import make_policy


class LocalClient:
    """A transformers VLM that the policy class loads, asked in batches; the likeliest answer is taken.

    Args:
        model: See `PolicyConfig.model`.
        max_tokens: Most tokens of an answer.
        batch_size: Most requests of a batch, >= 1.
    """

    def __init__(self, model: str, max_tokens: int, batch_size: int) -> None:
        cuda = torch.cuda.is_available()
        config = PolicyConfig(model=model, dtype="bfloat16" if cuda else "float32", max_prompt_tokens=2**15)
        self.policy = make_policy(config).to("cuda" if cuda else "cpu")
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self._waiting: list[tuple[Request, asyncio.Future[Reply]]] = []
        self._thread = ThreadPoolExecutor(1)  # a batch at a time
        self._running: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """See `Client.close`."""
        self._thread.shutdown()

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """The answers to some requests, as one batch."""
        prompts = self.policy.encode_chats(
            [[_decoded(image) for image in request.images] for request in requests],
            [request.messages for request in requests],
            ["a request"] * len(requests),
        )
        rollout = self.policy.sample(prompts, self.max_tokens, temperature=0)
        written = rollout.mask.sum(1).tolist()
        parts = zip(rollout.texts, prompts.lengths, written, rollout.truncated.tolist(), strict=True)
        return [Reply(text, read, count, truncated=cut) for text, read, count, cut in parts]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await asyncio.sleep(0.01)  # those who were answered last ask again meanwhile
            batch, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
            try:
                replies = await loop.run_in_executor(self._thread, self.answer, [request for request, _ in batch])
            except (ValueError, RuntimeError) as error:  # a prompt that is too long, or no memory for the batch
                for _, future in batch:
                    future.set_exception(Failure(f"{type(error).__name__}: {error}", status=422))
                continue
            for (_, future), reply in zip(batch, replies, strict=True):
                future.set_result(reply)
        self._running = None


def _decoded(image: bytes) -> Tensor:
    """An image file as (H, W, 3) uint8."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(image))))
