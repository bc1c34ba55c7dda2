"""What the server of `processes` imports and loads before the tests' processes fork from it, so that none does it again."""

import openai.resources.chat.completions  # noqa: F401
import pytest  # noqa: F401
import torch

import lightning_sal.annotation.runner
import lightning_sal.callbacks
import lightning_sal.cli
import lightning_sal.datamodules
import lightning_sal.metrics
import lightning_sal.prediction.folder
import lightning_sal.results  # noqa: F401
from lightning_sal.policy.policy import Policy
from tests.modules.parts import POLICY

torch.set_num_threads(1)
Policy(POLICY)
