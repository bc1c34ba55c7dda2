"""What holds for every test."""

import os

import pytest

from lightning_sal.tasks import TASKS


@pytest.fixture(autouse=True)
def _no_seed_left_behind():
    """`seed_everything` leaves its seed in the environment, where the strategies of later tests would take it up."""
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(autouse=True)
def _no_task_left_behind():
    """A task that is registered in a test is unknown to the next one."""
    known = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(known)
