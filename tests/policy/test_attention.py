"""What tokens see, against softmax over a block mask of the whole sequence, in double precision."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.policy import attention
from lightning_sal.policy.attention import Alone, SharedPrompt

WIDTH, STEPS = 5, 4  # of prompts, of responses


def states(prompts, heads, size, seed):
    """(P, H, S, D), laid out as a layer lays them out."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(prompts, size, heads, 8, dtype=torch.float64, generator=generator)
    return made.transpose(1, 2).requires_grad_()


def by_mask(query, key, value, lengths, responses):
    """The same by a (P, 1, S, S) mask: prompt tokens see the real ones before them, a response its prompt and itself."""
    size, shared = query.shape[2], query.shape[1] // key.shape[1]
    place = torch.arange(size)
    number = torch.where(place < WIDTH, -1, (place - WIDTH) // STEPS)  # of the response; -1 in the prompt
    seen = (place[:, None] >= place) & ((number[:, None] == number) | (number == -1))
    assert number.max() == responses - 1
    real = place >= WIDTH - torch.tensor(lengths)[:, None]
    key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
    scores = (query @ key.transpose(-1, -2) * 8**-0.5).masked_fill(~(seen & real[:, None, None]), float("-inf"))
    found = scores.softmax(-1).nan_to_num() @ value
    return (found * real[:, None, :, None]).transpose(1, 2)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 3, 3), (1, 5, 2), (4, 4, 4)])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 2), (3, 3), (4, 1)])
def test_responses_see_their_prompt_and_themselves(heads, key_heads, lengths, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(attention, "can_merge", lambda query: False)
    size = WIDTH + 3 * STEPS
    given = [states(3, count, size, seed) for seed, count in enumerate((heads, key_heads, key_heads))]
    cotangents = states(3, heads, size, 3).transpose(1, 2).detach()
    expected = by_mask(*given, lengths, 3)
    found = SharedPrompt.of(lengths, WIDTH, 3).attend(0, *given, None)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(seen, given, cotangents, retain_graph=True) for seen in (found, expected))
    torch.testing.assert_close(ours, theirs)
    query, *rest = given
    asked = 1 + 3 * STEPS
    last = SharedPrompt.of(lengths, WIDTH, 3).attend(
        0, query[:, :, -asked:], *rest, None
    )  # the last layer asks no more
    torch.testing.assert_close(last, expected[:, -asked:])
    ours, theirs = (torch.autograd.grad(seen[:, -asked:], given, cotangents[:, -asked:]) for seen in (last, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lengths", [(5, 5), (5, 3), (2, 2)])
def test_a_sequence_alone_sees_itself(lengths):
    given = [states(2, count, WIDTH + STEPS, seed) for seed, count in enumerate((4, 2, 2))]
    expected = by_mask(*given, lengths, 1)
    found = Alone.of(lengths, WIDTH).attend(0, *given, None)
    torch.testing.assert_close(found, expected)
    cotangents = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ours, theirs = (torch.autograd.grad(seen, given, cotangents, retain_graph=True) for seen in (found, expected))
    torch.testing.assert_close(ours, theirs)
    query, *rest = given
    last = Alone.of(lengths, WIDTH).attend(0, query[:, :, -1 - STEPS :], *rest, None)
    torch.testing.assert_close(last, expected[:, -1 - STEPS :])


@pytest.mark.parametrize("kernels", [True, False])
def test_padding_is_never_looked_at(kernels, monkeypatch):
    """Not a number there, and nothing else notices."""
    if not kernels:
        monkeypatch.setattr(attention, "can_merge", lambda query: False)
    given = [states(2, count, WIDTH + 2 * STEPS, seed).detach() for seed, count in enumerate((4, 2, 2))]
    for part in given:
        part[1, :, :2] = float("nan")
    found = SharedPrompt.of((5, 3), WIDTH, 2).attend(0, *given, None)
    assert found.isfinite().all()
    assert (found[1, :2] == 0).all()


def test_what_is_kept_for_the_gradient_does_not_grow_with_responses_times_prompt():
    """Keys of a prompt are kept once, and no mask is: bytes are those of the sequence, whatever G is."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    responses, length, heads, width = 6, 64, 4, 8
    size = length + responses * STEPS
    given = [torch.randn(1, size, n, width).transpose(1, 2).requires_grad_() for n in (heads, 2, 2)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        seen = SharedPrompt.of((length,), length, responses).attend(0, *given, None)
    numbers = size * width * (heads + 2 + 2 + heads) + size * heads  # given, seen, and a sum for each query
    assert sum(count for count, _ in kept.values()) == 4 * numbers
    seen.sum().backward()


def test_in_half_precision_parts_are_put_together_in_float32():
    size = WIDTH + 2 * STEPS
    given = [states(2, count, size, seed).detach().bfloat16() for seed, count in enumerate((4, 2, 2))]
    exact = SharedPrompt(WIDTH, 2).attend(0, *(part.double() for part in given), None)
    found = SharedPrompt(WIDTH, 2).attend(0, *given, None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=2**-7)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = SharedPrompt(WIDTH, 2).attend(0, *(part.float() for part in given), None)
    assert torch.equal(mixed, found)
