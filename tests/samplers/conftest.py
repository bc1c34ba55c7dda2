"""The policy whose responses are sampled."""

import pytest

from lightning_sal.policy.fast import FastPolicy
from tests.modules.parts import POLICY
from tests.samplers.server import often_ending


@pytest.fixture(scope="module")
def policy():
    return often_ending(FastPolicy(POLICY))
