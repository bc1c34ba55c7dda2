"""What the processes of rows have in common: a server imports and loads it once, and each is forked from it."""

# ruff: noqa: F401, E402
import torch

THREADS = torch.get_num_threads()
torch.set_num_threads(1)  # before all else: threads that wait for work do not survive a fork

import lightning

from lightning_sal import metrics, modules, rewards, segmenters
from lightning_sal.metrics import InstanceAlignedStructureMeasure, InstanceAveragePrecision, SaliencySuite
from lightning_sal.policy import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.segmenters.sam2_prompt import SAM2Prompt
from lightning_sal.segmenters.tiny import embedded_evf_sam2

FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=16)))  # the words of its tokenizer, and tables of transformers
