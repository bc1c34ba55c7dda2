"""What the server of `processes` imports and loads before the tests' processes fork from it, so that none does it again."""

import openai.resources.chat.completions  # noqa: F401
import pytest  # noqa: F401
import torch

import tests.forking  # noqa: F401
from lightning_sal.policy.fast import FastPolicy
from tests.modules.parts import POLICY

torch.set_num_threads(1)
FastPolicy(POLICY)
