"""What rows import: a server loads it once, and the process of each row is forked from it."""

# ruff: noqa: F401
import lightning
import peft
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lightning_sal import metrics, modules, rewards, segmenters
from lightning_sal.metrics import InstanceAlignedStructureMeasure, InstanceAveragePrecision, SaliencySuite
from lightning_sal.policy.policy import Policy
from lightning_sal.segmenters.sam2_prompt import SAM2Prompt
from lightning_sal.segmenters.tiny import embedded_evf_sam2
from lightning_sal.tiny.policy import scratch_policy
