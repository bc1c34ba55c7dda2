"""Fine-tuning the segmenter on the expressions of annotated responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_sal.metrics import MaskIoU, StructureMeasure
from lightning_sal.modules.checkpoints import FineTuningModule
from lightning_sal.objectives import mask_bce, mask_dice, pair_masks
from lightning_sal.samples import Batch, ImageGroup
from lightning_sal.segmenters.evf_sam2 import EVFSAM2
from lightning_sal.segmenters.tiny import embedded_evf_sam2
from lightning_sal.tasks import get_task

Part = Literal["mask_decoder", "beit3", "image_encoder"]
_PREFIXES: dict[str, tuple[str, ...]] = {
    "mask_decoder": ("visual_model.sam_mask_decoder.",),
    "beit3": ("mm_extractor.", "text_hidden_fcs."),
    "image_encoder": ("visual_model.image_encoder.", "visual_model.no_mem_embed"),
}
# The choice among three masks is made by the predicted IoU, which gets no loss here: frozen, it stays what it was.
_WITHOUT_LOSS = ("iou_prediction_head", "pred_obj_score_head", ".mask_token")


class SegmenterFineTuning(FineTuningModule):
    """Fine-tune EVF-SAM2 on (image, expression, mask): BCE, and dice where it has a weight.

    loss = 1/M sum_m (bce_m + dice_weight dice_m) over the M masks of a step on all ranks, at each image's own size; the
    losses are those of EVF-SAM's code. Expressions come from the annotated response of each sample:

    - the regions of an image (SOD, CoSOD) are judged together, by the largest of their logits at each pixel, since the
      ground truth is their union;
    - instances (SIS) are paired with the ground truth by the least total BCE; what is left over on either side counts
      nothing.

    Validation reports `val/s_measure`, `val/giou` and `val/ciou` over the same pairs.

    Args:
        segmenter: What is trained, as `lightning_sal.segmenters.EVFSAM2.from_pretrained`; null takes the embedded one.
        train: Parts that are trained: mask_decoder, beit3 (with the layers that make prompts of its output),
            image_encoder. The head that predicts IoU gets no loss and stays frozen.
        dice_weight: Weight of the dice loss, >= 0; the recipe has BCE alone.
        export: Folder that the segmenter is written to at the end; it must not exist yet. Null writes none.
        optimizer: Called with the parameters that are trained.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step; null keeps the learning rate.

    Raises:
        FileExistsError: If `export` exists.
    """

    weights_of = "segmenter"

    def __init__(
        self,
        segmenter: EVFSAM2 | None = None,
        train: Sequence[Part] = ("mask_decoder",),
        dice_weight: float = 0.0,
        export: Path | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if export is not None and export.exists():
            raise FileExistsError(f"{export} exists already: name another folder to write the segmenter to")
        self.segmenter: EVFSAM2 = embedded_evf_sam2() if segmenter is None else segmenter
        self.dice_weight, self.export = dice_weight, export
        self.metrics: Any = torch.nn.ModuleDict({"s_measure": StructureMeasure(), "iou": MaskIoU()})
        self.trained_prefixes = tuple(prefix for part in train for prefix in _PREFIXES[part])
        for name, parameter in self.segmenter.named_parameters():
            trained = name.startswith(self.trained_prefixes) and not any(part in name for part in _WITHOUT_LOSS)
            parameter.requires_grad_(trained)

    def train(self, mode: bool = True) -> SegmenterFineTuning:
        """Parts that are frozen stay in evaluation mode."""
        super().train(mode)
        for name, part in self.segmenter.named_modules():
            part.training = mode and f"{name}.".startswith(self.trained_prefixes)
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        pairs = self.pairs(batch.groups)
        losses = [mask_bce(*pair) + self.dice_weight * mask_dice(*pair) for pair in pairs]
        mine = torch.tensor(float(sum(len(loss) for loss in losses)), device=self.device)
        count: Any = self.trainer.strategy.reduce(mine, reduce_op="sum")
        total = torch.stack([loss.sum() for loss in losses]).sum()
        loss = total / count.clamp(min=1)
        self.log("train/loss", loss.detach(), prog_bar=True, sync_dist=True, reduce_fx="sum", on_step=True)
        return loss * self.trainer.world_size  # data-parallel strategies average gradients over ranks

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for logits, target in self.pairs(batch.groups):
            for metric in self.metrics.values():
                metric.update(logits > 0, target)

    def on_validation_epoch_end(self) -> None:
        scores: Any = {"s_measure": self.metrics["s_measure"].compute(), **self.metrics["iou"].compute()}
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, sync_dist=True)  # equal already
        for metric in self.metrics.values():
            metric.reset()

    def pairs(self, groups: Sequence[ImageGroup]) -> list[tuple[Tensor, Tensor]]:
        """Logits and ground truths of each image, (M, H, W) both, in the order of the groups and their images.

        Raises:
            ValueError: If a sample has no masks or no response whose expressions can be read.
        """
        images = [image for group in groups for image in group.images]
        expressions = [texts for group in groups for texts in [_expressions(group)] * len(group.images)]
        targets = [target for group in groups for target in group.masks or ()]
        instances = [get_task(group.task).masks_per_image is None for group in groups for _ in group.images]
        ids = [[torch.tensor(row) for row in self.segmenter.tokenize(texts)] for texts in expressions]
        logits = self.segmenter.logits(images, ids)
        return [pair_masks(*parts) for parts in zip(logits, targets, instances, strict=True)]

    def on_fit_end(self) -> None:
        if self.export is not None and self.trainer.is_global_zero:
            self.segmenter.save_pretrained(self.export)


def _expressions(group: ImageGroup) -> tuple[str, ...]:
    if group.masks is None or group.response is None:
        raise ValueError(f"{group.key}: the segmenter learns from a response and masks, and this sample lacks one")
    answer = get_task(group.task).parse(group.response)
    if not answer.labels:
        raise ValueError(f"{group.key}: no expression can be read from the response: {answer.reason}")
    return answer.labels
