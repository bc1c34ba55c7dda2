"""The queue that values are ranked in: by hand, by a slow second way, and against the sequences of the reference."""

import doctest
import json
import random
from collections import deque
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_sal.rewards import RankQueue, ranks

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "dr_seg"
beside = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared, which lies beside the project where it is developed"
)


def by_hand(past, values, digits=1):
    shares = [[sum(q[d] <= x for q in past) / len(past) for d, x in enumerate(row)] for row in values]
    return [[share if digits is None else round(share, digits) for share in row] for row in shares]


def finite(value):
    return float("nan") if isinstance(value, str) and value == "NaN" else float(value)


def numbers(rows):
    return [[finite(value) for value in row] for row in rows]


def test_the_docstring():
    assert doctest.testmod(ranks).failed == 0


def test_steps_by_hand():
    queue = RankQueue(capacity=5, zeros=2, dimensions=2)
    assert queue.ranks([[0.3, 0.0], [-0.1, 7.0]]).tolist() == [[1.0, 1.0], [0.0, 1.0]]
    queue.enqueue([[0.3, 0.1], [0.5, 0.1]])
    assert queue.ranks([[0.3, 0.1]]).tolist() == [[1.0, 1.0]]  # what waits does not count yet
    assert queue.flush() == (2, 0)
    assert queue.ranks([[0.3, 0.1], [0.2, 0.0], [0.5, 0.05]]).tolist() == [[0.8, 1.0], [0.5, 0.5], [1.0, 0.5]]
    queue.enqueue([[0.7, 0.2], [0.9, 0.3]])
    assert queue.flush() == (2, 1)
    assert queue.rows.tolist() == [[0.0, 0.0], [0.3, 0.1], [0.5, 0.1], [0.7, 0.2], [0.9, 0.3]]
    queue.enqueue([[float(n), -float(n)] for n in range(8)])
    assert queue.flush() == (8, 8)
    assert queue.rows[:, 0].tolist() == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert queue.flush() == (0, 0)


def test_a_tie_at_half_a_decimal_is_rounded_as_python_rounds_the_binary_number():
    """0.05, 0.15, 0.25 and so on are above or below their decimal names; a half that is exact goes to the even digit."""
    for length in (8, 20, 40, 2000):
        queue = RankQueue(length, 1, 1)
        queue.enqueue([[float(n)] for n in range(1, length)])
        queue.flush()
        found = queue.ranks([[float(n)] for n in range(length)])[:, 0].tolist()
        assert found == [round((n + 1) / length, 1) for n in range(length)]
    assert round(0.25, 1) == 0.2  # and not 0.3


@pytest.mark.parametrize("digits", [1, 2, None])
def test_a_second_way_gives_the_same(digits):
    draw = random.Random(0)
    queue, past = RankQueue(16, 3, 2, digits=digits), deque([[0.0, 0.0]] * 3, 16)
    for _ in range(30):
        rows = [[draw.choice([0.0, -0.0, 0.1, 1 / 3, draw.random()]), draw.random()] for _ in range(draw.randrange(24))]
        assert queue.ranks(torch.tensor(rows, dtype=torch.float64).view(-1, 2)).tolist() == by_hand(past, rows, digits)
        queue.enqueue(rows[: len(rows) // 2])
        queue.enqueue(rows[len(rows) // 2 :])
        before = len(past)
        past.extend(rows)
        assert queue.flush() == (len(rows), before + len(rows) - len(past))
        assert queue.rows.tolist() == list(past)


def test_what_is_not_finite_counts_as_0_and_is_never_stored():
    queue = RankQueue(4, 1, 2)
    queue.enqueue([[float("nan"), 0.5], [0.5, float("-inf")], [float("inf"), 0.25]])
    queue.flush()
    assert queue.rows.tolist() == [[0.0, 0.0], [0.0, 0.5], [0.5, 0.0], [0.0, 0.25]]
    assert queue.ranks([[float("nan"), float("inf")]]).tolist() == [[0.8, 0.5]]


@pytest.mark.parametrize(
    "convert", [nn.Module.half, nn.Module.bfloat16, nn.Module.float, lambda m: m.to(torch.bfloat16)]
)
def test_every_bit_stays_whatever_the_module_is_converted_to(convert):
    parent = nn.ModuleList([RankQueue(4, 1, 1, digits=None), nn.Linear(1, 1)])
    parent[0].enqueue([[1 / 3], [2 / 3]])
    parent[0].flush()
    convert(parent)
    queue = parent[0]
    assert queue.rows.tolist() == [[0.0], [1 / 3], [2 / 3]]
    just_below = torch.tensor([[1 / 3]], dtype=torch.float64).nextafter(torch.zeros(1, 1, dtype=torch.float64))
    assert queue.ranks(torch.cat([just_below, torch.tensor([[1 / 3]], dtype=torch.float64)])).tolist() == [
        [1 / 3],
        [2 / 3],
    ]
    assert queue.ranks([[1.0]]).dtype == torch.float64


def test_state_goes_on_where_it_was_with_what_still_waits():
    first, second = RankQueue(4, 1, 1), RankQueue(4, 1, 1)
    shapes = {name: value.shape for name, value in first.state_dict().items()}
    first.enqueue([[0.1]] * 5)
    first.flush()
    first.enqueue([[0.7]])
    second.load_state_dict(first.state_dict())
    assert {name: value.shape for name, value in first.state_dict().items()} == shapes
    for queue in (first, second):
        assert queue.flush() == (1, 1)
        assert queue.rows.tolist() == [[0.1], [0.1], [0.1], [0.7]]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"zeros": 0}, "give zeros >= 1"),
        ({"capacity": 64}, "capacity 64 does not hold the 128 rows"),
        ({"dimensions": 0}, "dimensions must be at least 1"),
        ({"digits": -1}, "digits at least 0"),
    ],
)
def test_a_queue_that_cannot_rank_is_refused(options, line):
    with pytest.raises(ValueError, match=line) as error:
        RankQueue(**options)
    assert len(str(error.value).splitlines()) == 1


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"must be \(B, 3\), not \(3,\)"):
        RankQueue().ranks([0.1, 0.2, 0.3])


@beside
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_sequences_of_the_reference(number):
    sequence = json.loads((SHARED / "dr_seg_ecdf.json").read_text())["sequences"][number]
    queue = RankQueue(sequence["capacity"], sequence["zero_rows"], 3, digits=sequence["digits"])
    for step in sequence["steps"]:
        right = step | step.get("right", {})
        assert len(queue) == step.get("queue_len_before", len(queue))
        batch = numbers(step["batch"])
        assert queue.ranks(batch).tolist() == right["ranks_before_flush"], step["step"]
        queue.enqueue(batch)
        if step["flush"] is not None:
            assert queue.flush() == (step["flush"]["added"], step["flush"]["dropped"])
            assert len(queue) == step["flush"]["new_len"]
        assert queue.ranks(torch.tensor(batch, dtype=torch.float64).view(-1, 3)).tolist() == right["ranks_after_flush"]
        if "probes_after_flush" in step:
            assert queue.ranks(numbers(step["probes_after_flush"])).tolist() == step["probe_ranks"]
        if probes := step.get("float32_probes"):
            assert queue.ranks(probes["probes"]).tolist() == probes["right"]
        if "queue_after" in step:
            assert queue.rows.tolist() == step["queue_after"]
        left = step.get("initial_zero_rows_left")
        assert left is None or not queue.rows[:left].any()
    for name, rows in (("first", slice(None, 16)), ("last", slice(-16, None))):
        if f"final_queue_{name}_rows" in sequence:
            assert queue.rows[rows].tolist() == sequence[f"final_queue_{name}_rows"]


@beside
def test_the_ranks_of_the_rewards_of_the_reference():
    filled = json.loads((SHARED / "dr_seg_warm_queue.json").read_text())
    fresh, warm = RankQueue(), RankQueue(filled["capacity"], filled["zero_rows"])
    warm.enqueue(filled["rows"])
    assert warm.flush() == (232, 0)
    checked = 0
    for line in (SHARED / "dr_seg_rewards.jsonl").read_text().splitlines():
        record = json.loads(line)
        right = record | record.get("right", {})
        if right.get("raise"):
            continue
        row = [[finite(value) for value in right["x"]]]
        assert fresh.ranks(row).tolist() == [right["ranks_fresh"]], record["id"]
        assert warm.ranks(row).tolist() == [right["ranks_warm"]], record["id"]
        checked += 1
    assert checked > 200
