"""Fine-tuning the segmenter on the expressions of annotated responses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_sal.metrics import MaskIoU, StructureMeasure
from lightning_sal.modules.agreement import refuse_other_weights
from lightning_sal.modules.exact_resume import ExactResume
from lightning_sal.modules.stopping import SaveAtEnd, StopAtSigterm
from lightning_sal.objectives import mask_bce, mask_dice, pairwise_mask_bce
from lightning_sal.samples import Batch, ImageGroup
from lightning_sal.segmenters.evf_sam2 import EVFSAM2
from lightning_sal.segmenters.tiny import embedded_segmenter
from lightning_sal.tasks import TASKS

Part = Literal["mask_decoder", "beit3", "image_encoder"]
_PREFIXES: dict[str, tuple[str, ...]] = {
    "mask_decoder": ("visual_model.sam_mask_decoder.",),
    "beit3": ("mm_extractor.", "text_hidden_fcs."),
    "image_encoder": ("visual_model.image_encoder.", "visual_model.no_mem_embed"),
}
# The choice among three masks is made by the predicted IoU, which gets no loss here: frozen, it stays what it was.
_WITHOUT_LOSS = ("iou_prediction_head", "pred_obj_score_head", ".mask_token")


class SegmenterFineTuning(L.LightningModule):
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

    def __init__(
        self,
        segmenter: EVFSAM2 | None = None,
        train: Sequence[Part] = ("mask_decoder",),
        dice_weight: float = 0.0,
        export: Path | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if export is not None and export.exists():
            raise FileExistsError(f"{export} exists already: name another folder to write the segmenter to")
        self.strict_loading = False  # checkpoints hold what is trained, and `on_load_checkpoint` checks that
        self.segmenter: EVFSAM2 = embedded_segmenter() if segmenter is None else segmenter
        self.dice_weight, self.export = dice_weight, export
        self.make_optimizer, self.make_lr_scheduler = optimizer, lr_scheduler
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

    def configure_callbacks(self) -> list[L.Callback]:
        return [ExactResume(), StopAtSigterm(), SaveAtEnd()]

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_lr_scheduler(optimizer), "interval": "step"},
        }

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
        instances = [TASKS[group.task].instances for group in groups for _ in group.images]
        ids = [[torch.tensor(row) for row in self.segmenter.tokenize(texts)] for texts in expressions]
        logits = self.segmenter.logits(images, ids)
        return [pair(*parts) for parts in zip(logits, targets, instances, strict=True)]

    def on_fit_end(self) -> None:
        if self.export is not None and self.trainer.is_global_zero:
            self.segmenter.save_pretrained(self.export)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        keep = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in keep}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        refuse_other_weights(checkpoint["state_dict"], own, "segmenter")


def pair(logits: Tensor, target: Tensor, instances: bool) -> tuple[Tensor, Tensor]:
    """Which logits answer for which ground truth on an image.

    Args:
        logits: (E, H, W), one an expression, E >= 1.
        target: (1, H, W) bool of a region, or (I, H, W) of instances.
        instances: Whether each expression is an instance of its own.

    Returns:
        (M, H, W) both: M = 1 for regions, min(E, I) for instances.
    """
    if not instances:
        return logits.amax(0, keepdim=True), target
    with torch.no_grad():
        rows, columns = linear_sum_assignment(pairwise_mask_bce(logits, target).cpu().numpy())
    return logits[torch.from_numpy(rows)], target[torch.from_numpy(columns)]


def _expressions(group: ImageGroup) -> tuple[str, ...]:
    if group.masks is None or group.response is None:
        raise ValueError(f"{group.key}: the segmenter learns from a response and masks, and this sample lacks one")
    answer = TASKS[group.task].parse(group.response)
    if not answer.expressions:
        raise ValueError(f"{group.key}: no expression can be read from the response: {answer.reason}")
    return answer.expressions
