from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from lightning_sal.datasets.endless import Mixture, Repeated
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.streams import EvaluationLoader, Stream
from lightning_sal.samples import Batch, ImageGroup


class Numbers:
    """Sample i is a group with key i; some are bad, and what was read is on record."""

    def __init__(self, size: int, bad: tuple[int, ...] = ()) -> None:
        self.size, self.bad, self.read = size, bad, []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> ImageGroup:
        self.read.append(index)
        if index in self.bad:
            raise UnreadableSample(f"{index}.jpg: broken")
        return ImageGroup(str(index), "sod", (torch.zeros(1, 1, 3, dtype=torch.uint8),))


class Endless(Numbers):
    endless = True


def keys(batches) -> list[list[int]]:
    return [[int(group.key) for group in batch] for batch in batches]


def flat(batches) -> list[int]:
    return [key for batch in keys(batches) for key in batch]


def test_an_epoch_shows_every_sample_once_in_its_own_order():
    stream = Stream(Numbers(10), 2, seed=3)
    assert len(stream) == 5
    epochs = [flat(islice(stream, 5)) for _ in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] == flat(islice(Stream(Numbers(10), 2, seed=3), 5))
    assert epochs[0] != flat(islice(Stream(Numbers(10), 2, seed=4), 5))
    assert flat(islice(Stream(Numbers(10), 3, seed=3, shuffle=False), 5)) == [*range(10), *range(5)]


def test_an_endless_dataset_is_read_in_the_order_of_its_indices():
    stream = Stream(Endless(10), 3, seed=0, length=4)
    assert len(stream) == 4
    assert keys(islice(stream, 4)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("after", [0, 2])
def test_a_stopped_stream_goes_on_with_exactly_the_next_sample(before, after):
    whole = keys(islice(Stream(Numbers(7), 2, seed=1), 12))
    stopped = Stream(Numbers(7), 2, seed=1, num_workers=before)
    first = keys(islice(stopped, 5))  # workers have read further ahead by now
    state = stopped.state_dict()
    resumed = Stream(Numbers(7), 2, seed=1, num_workers=after)
    resumed.load_state_dict(state)
    assert state == {"position": 10}
    assert first + keys(islice(resumed, 7)) == whole


def test_iterating_again_continues():
    whole = keys(islice(Stream(Numbers(7), 2, seed=1), 6))
    stream = Stream(Numbers(7), 2, seed=1)
    assert [keys(islice(iter(stream), 2)) for _ in range(3)] == [whole[:2], whole[2:4], whole[4:]]


def test_ranks_take_disjoint_samples_of_one_order_in_equally_many_batches():
    single = flat(islice(Stream(Numbers(12), 6, seed=2), 2))
    ranks = [Stream(Numbers(12), 2, seed=2, rank=rank, world_size=3) for rank in range(3)]
    assert [len(stream) for stream in ranks] == [2, 2, 2]
    shares = [flat(islice(stream, 2)) for stream in ranks]
    assert sorted(key for share in shares for key in share) == list(range(12))
    assert [shares[i % 3][i // 3] for i in range(12)] == single
    assert {stream.position for stream in ranks} == {12}


def test_a_stream_that_nobody_draws_from_reads_nothing():
    dataset = Numbers(10)
    stream = Stream(dataset, 2, seed=0, num_workers=2)
    assert iter(stream) is stream
    assert len(stream) == 5
    stream.load_state_dict({"position": 4})
    assert stream._iterator is None
    assert dataset.read == []


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    next(Stream(Numbers(10), 2, seed=0))
    list(EvaluationLoader(Numbers(3), 2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_sample_is_replaced_by_the_next_one_and_named(num_workers):
    stream = Stream(Endless(10, bad=(1, 4, 5)), 2, seed=0, num_workers=num_workers)
    batches = list(islice(stream, 3))
    assert keys(batches) == [[0, 2], [2, 3], [6, 6]]
    assert [batch.unreadable for batch in batches] == [
        ("1.jpg: broken",),
        (),
        ("4.jpg: broken", "5.jpg: broken", "5.jpg: broken"),
    ]
    assert stream.position == 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_of_bad_samples_alone_ends_in_one_line(num_workers):
    stream = Stream(Numbers(3, bad=(0, 1, 2)), 2, seed=0, num_workers=num_workers)
    with pytest.raises(UnreadableSample, match=r"in a row cannot be read, the last: \d\.jpg: broken") as error:
        next(stream)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_evaluation_shows_each_sample_once_over_all_ranks(size, world_size):
    loaders = [EvaluationLoader(Numbers(size), 2, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [list(loader) for loader in loaders]
    assert sorted(flat(batch for share in shares for batch in share)) == list(range(size))
    assert {len(share) for share in shares} == {len(loader) for loader in loaders}
    assert len({len(loader) for loader in loaders}) == 1
    assert [keys(loader) for loader in loaders] == [keys(share) for share in shares]  # and again


def test_evaluation_leaves_bad_samples_out_and_names_them():
    batches = list(EvaluationLoader(Numbers(5, bad=(1, 4)), 2, num_workers=1))
    assert keys(batches) == [[0], [2, 3], []]
    assert batches[2] == Batch((), ("4.jpg: broken",))


def test_a_mixture_draws_by_weight_and_leaves_nothing_out():
    parts = {name: Repeated(Named(name, size), seed=0) for name, size in (("a", 50), ("b", 20), ("c", 5))}
    mixture = Mixture(parts, {"a": 6, "b": 3, "c": 1}, seed=4)
    drawn = [mixture[i].key for i in range(10_000)]
    counts = Counter(key[0] for key in drawn)
    for name, weight in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert counts[name] == pytest.approx(10_000 * weight, abs=4 * np.sqrt(10_000 * weight * (1 - weight)))
        own = [key for key in drawn if key[0] == name]
        size = len(parts[name])
        assert all(len(set(own[i : i + size])) == size for i in range(0, len(own) - size, size))
    again = Mixture(parts, {"a": 6, "b": 3, "c": 1}, seed=4)
    assert [again[i].key for i in (9_999, 17, 5_000)] == [drawn[i] for i in (9_999, 17, 5_000)]


class Named(Numbers):
    def __init__(self, name: str, size: int) -> None:
        super().__init__(size)
        self.name = name

    def __getitem__(self, index: int) -> ImageGroup:
        return ImageGroup(f"{self.name}{index}", "sod", (torch.zeros(1, 1, 3, dtype=torch.uint8),))


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": -1}, {"a": 0, "b": 0}, {"a": 1, "b": 1, "c": 1}])
def test_weights_that_do_not_fit_are_refused(weights):
    parts = {"a": Repeated(Numbers(2), seed=0), "b": Repeated(Numbers(2), seed=0)}
    with pytest.raises(ValueError, match="weights"):
        Mixture(parts, weights, seed=0)
