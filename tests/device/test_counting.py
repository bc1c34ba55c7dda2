"""What an operation of the pretended device costs is counted once, at its line."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.objectives import cgpo_advantages
from tests.device import pretend
from tests.device.counting import counting, tracing


@pytest.fixture
def tensor():
    return torch.arange(6.0, device=pretend.device()).view(2, 3)


def totals(function):
    with counting() as counts:
        function()
    return counts.waits.total(), counts.copies.total(), counts.queued.total(), counts.kernels.total()


WAIT, COPY, QUEUED, NOTHING = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x[0, 0].item(), WAIT),
        (lambda x: bool(x[0, 1]), WAIT),
        (lambda x: x.tolist(), WAIT),
        (lambda x: x.cpu(), WAIT),
        (lambda x: torch.empty(2, 3).copy_(x), WAIT),
        (lambda x: x.nonzero(), WAIT),
        (lambda x: x.unique(), WAIT),
        (lambda x: torch.equal(x, x), WAIT),
        (lambda x: x[0].long().bincount(), (1, 0, 0, 1)),  # a cast is a kernel
        (lambda x: x[x > 1], (1, 0, 0, 1)),
        (lambda x: x.masked_select(x > 1), (1, 0, 0, 1)),
        (lambda x: torch.get_device_module(x.device).synchronize(), WAIT),
        (lambda x: torch.ones(2).to(x.device), COPY),
        (lambda x: torch.tensor([1, 2], device=x.device), COPY),
        (lambda x: torch.tensor(1.0, device=x.device), COPY),
        (lambda x: x[[0]], (0, 1, 0, 1)),
        (lambda x: x[torch.tensor([0])], COPY),
        (lambda x: x.copy_(torch.ones(2, 3)), COPY),
        (lambda x: torch.ones(2).to(x.device, non_blocking=True), QUEUED),
        (lambda x: torch.empty(2, 3).copy_(x, non_blocking=True), QUEUED),
        (lambda x: x.view(3, 2)[1:].T, NOTHING),
        (lambda x: torch.empty_like(x), NOTHING),
        (lambda x: x + 2 * x, (0, 0, 0, 2)),
        (lambda x: torch.zeros(2, device=x.device), (0, 0, 0, 1)),
        (lambda x: x.masked_fill_(x > 1, 0.0), (0, 0, 0, 2)),
        (lambda x: x.__setitem__(x > 1, 0.0), (0, 0, 0, 2)),
        (lambda x: x.__setitem__(x[0].long() % 2, 1.0), (0, 0, 0, 3)),
        (lambda x: x.__setitem__(x[0].long() % 2, torch.tensor(1.0)), (0, 1, 0, 2)),
        (lambda x: x.__setitem__(x > 1, x[x > 1]), (2, 0, 0, 2)),
        (lambda x: x.repeat_interleave(torch.ones(2, dtype=torch.long, device=x.device), 0, output_size=2), None),
    ],
)
def test_each_kind_is_counted_once(tensor, function, expected):
    found = totals(lambda: function(tensor))
    assert found == (expected or (0, 0, 0, found[3]))


def test_by_the_line_that_asks(tensor):
    with counting() as counts:
        cgpo_advantages(tensor[0], tensor[1])
        tensor.sum().item()
    (ours,) = counts.within("objectives/").kernels
    assert (ours.file, ours.function, ours.operation) == ("objectives/advantages.py", "cgpo_advantages", "sub")
    (wait,) = counts.outside("objectives/").waits
    assert wait.file == "test_counting.py"
    assert "wait    test_counting.py" in str(counts)
    assert not counts.within("objectives/").waits


def test_a_step_that_is_the_same_each_time(tensor):
    buffer, at = torch.zeros(2, 3, device=tensor.device), torch.zeros(1, dtype=torch.long, device=tensor.device)

    def step():
        buffer.index_add_(0, at, (tensor * 2 + 1)[:1])

    traces = []
    for _ in range(2):
        with tracing() as trace:
            step()
        traces.append(trace)
    assert [each.name.split(".")[1] for each in traces[0]] == ["mul", "add", "slice", "index_add_"]
    assert traces[0].difference(traces[1]) is None


@pytest.mark.parametrize(
    "step",
    [
        lambda state: state["x"].add_(state["n"]),  # another number
        lambda state: state.update(x=state["x"] + 1),  # another buffer
        lambda state: state["x"][: state["n"]].add_(1),  # another shape
        lambda state: state["x"].add_(torch.tensor(float(state["n"]))),  # a number of the CPU
    ],
)
def test_a_step_that_differs(tensor, step):
    state, traces = {"x": tensor, "n": 0}, []
    for _ in range(2):
        state["n"] += 1
        with tracing() as trace:
            step(state)
        traces.append(trace)
    assert "is followed by" in (traces[0].difference(traces[1]) or "")
