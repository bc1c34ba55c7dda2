"""Supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.modules.base import PolicyModule
from lightning_sal.samples import Batch


class SFT(PolicyModule):
    """Supervised fine-tuning: token cross-entropy on annotated responses, -1/N sum_t log p(y_t | images, y_<t)."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.sft_step(batch)
