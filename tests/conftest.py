"""What holds for every test."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_seed_left_behind():
    """`seed_everything` leaves its seed in the environment, where the strategies of later tests would take it up."""
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)
