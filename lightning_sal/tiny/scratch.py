"""The small policies before any training of their own, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_sal.tiny.perception import perception_scratch
from lightning_sal.tiny.policy import scratch_policy, varied_scratch

SCRATCH_POLICIES: dict[str, Callable[[], tuple[Any, Any, dict[str, str]]]] = {
    "tiny-scratch": scratch_policy,
    "tiny-varied-scratch": varied_scratch,
    "tiny-perception-scratch": perception_scratch,
}
"""Name -> what makes model, processor and instructions."""
