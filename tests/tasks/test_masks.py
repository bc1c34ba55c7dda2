"""What tasks with masks are measured by: the usual, and everything where it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_sal.evaluation.metrics import compute_all, row_values
from lightning_sal.formulas.extra import extra_values
from lightning_sal.tasks import SIS, SOD, Task
from tests.metrics.parts import maps

MAP, MASK = maps(1, 40, 56)
SCENES = {SOD: (MAP, MASK), SIS: (torch.cat([MASK, ~MASK]), torch.cat([MASK, MASK.roll(5, 1)]))}


@pytest.mark.parametrize("task", [SOD, SIS], ids=lambda task: task.name)
def test_all_measures_are_measured_where_they_are_asked_for(task: Task) -> None:
    known = task.measures()
    extra = {name for name, measure in known.items() if measure.extra}
    usual, every = task.metrics(), task.metrics(everything=True)
    rows = [task.score(metrics, *SCENES[task], None) for metrics in (usual, every)]
    results = [{name: value.item() for name, value in compute_all(metrics).items()} for metrics in (usual, every)]
    for found in (rows, results):
        assert set(found[0]) == set(known) - extra
        assert set(found[1]) == set(known)
        assert {name: found[1][name] for name in found[0]} == found[0]
    assert results[1] == pytest.approx(rows[1], abs=1e-12)  # of one image the mean is its value
    assert not extra & row_values(task.name, {}).keys()  # no column for what is not asked for
    assert not any(known[name].primary or known[name].reported for name in extra)


def test_what_arrays_give_is_what_the_task_gives() -> None:
    row = SOD.score(SOD.metrics(everything=True), MAP, MASK, None)
    found = extra_values(MAP[0].numpy(), MASK[0].numpy())
    assert extra_values(MAP[0], MASK[0]) == found  # of tensors too
    assert {name: row[name] for name in found} == pytest.approx(found, abs=1e-12)
    assert all(isinstance(value, float) for value in found.values())
    assert extra_values(np.zeros((5, 6)), np.zeros((5, 6), dtype=bool))["hce"] == 0


def test_directions_are_stated() -> None:
    perfect = SOD.score(SOD.metrics(everything=True), MASK.double(), MASK, None)
    bad = SOD.score(SOD.metrics(everything=True), (~MASK).double(), MASK, None)
    same = {"specificity_max", "e_max", "msiou"}  # at some threshold nothing is predicted; edges are the same
    for name, measure in SOD.measures().items():
        better = perfect[name] < bad[name] if measure.lower_is_better else perfect[name] > bad[name]
        assert better or name in same, name
