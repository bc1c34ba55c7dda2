"""A model on this machine is asked in batches, in words of ours, and answers as it does alone."""

import asyncio
from typing import Any

import pytest
import torch

from lightning_sal.annotation.requests import picture
from lightning_sal.clients.api import Failure
from lightning_sal.clients.local import LocalClient
from lightning_sal.clients.requests import Request
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.tasks import TASKS

LIMIT = 60


@pytest.fixture(scope="module")
def scenes():
    dataset = SceneGroups(3, {"sod": 1, "cosod": 1}, size=5)
    return [dataset[i] for i in range(5)]


def asked(client: LocalClient, requests: list[Request]) -> list[Any]:
    async def together():
        try:
            return await asyncio.gather(*(client.ask(request) for request in requests), return_exceptions=True)
        finally:
            await client.close()

    return asyncio.run(together())


def questions(scenes) -> list[Request]:
    """What the embedded policy was trained to be asked about these scenes."""
    policy = FastPolicy(PolicyConfig("tiny"))
    return [
        Request(tuple(picture(image, 500) for image in scene.images), (policy.messages(scene)[-1].text,))
        for scene in scenes
    ]


def test_requests_that_wait_together_are_one_batch_and_answered_as_alone(scenes):
    client, batches = LocalClient("tiny", LIMIT, 3), []
    answer = client.answer
    client.answer = lambda requests: batches.append(len(requests)) or answer(requests)
    requests = questions(scenes)
    replies = asked(client, requests)
    assert batches == [3, 2]
    assert [reply.text for reply in replies] == [answer([request])[0].text for request in requests]
    read = [TASKS[scene.task].parse(reply.text) for scene, reply in zip(scenes, replies, strict=True)]
    assert sum(each.reason is None for each in read) >= 4  # it is good at scenes
    for reply in replies:
        tokens = client.policy.encode_responses([reply.text])[0].shape[1]
        assert reply.output_tokens == tokens
        assert reply.input_tokens > 20
        assert not reply.truncated


def test_the_model_reads_the_turns_of_a_conversation(scenes):
    client = LocalClient("tiny", 4, 2)
    images = tuple(picture(image, 500) for image in scenes[0].images)
    short, long = Request(images, ("the disc",)), Request(images, ("the disc", "so", "the red disc of the two"))
    replies = asked(client, [short, long])
    later = "<|im_start|>assistant\nso<|im_end|>\n<|im_start|>user\nthe red disc of the two<|im_end|>\n"
    difference = len(client.policy.processor.tokenizer(later)["input_ids"])
    assert replies[1].input_tokens - replies[0].input_tokens == difference
    assert all(reply.output_tokens <= 4 for reply in replies)


def test_what_does_not_fit_fails_once_and_for_all(scenes):
    client = LocalClient("tiny", 4, 2)
    (failure,) = asked(client, [Request((picture(torch.zeros(8, 8, 3, dtype=torch.uint8), 500),), ("disc " * 2**15,))])
    assert isinstance(failure, Failure)
    assert not failure.passing
    assert "more than max_prompt_tokens" in str(failure)
