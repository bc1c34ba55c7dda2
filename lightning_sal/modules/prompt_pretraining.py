"""How the embedded segmenter by boxes and points is made: SAM2 of the embedded EVF-SAM2 learns its own prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_sal.modules.segmenter_pretraining import dice
from lightning_sal.samples import Batch, VisualPrompt
from lightning_sal.segmenters.tiny import embedded_segmenter, tiny_sam2_prompt
from lightning_sal.segmenters.weights import find_file, read_file
from lightning_sal.tiny.cells import scenes_of_group
from lightning_sal.tiny.finding import box_of, point_of
from lightning_sal.tiny.scenes import SIZE, Draw, SceneObject

_OFF = 6  # most pixels that a side of a box is off while training
_CELLS = 7  # of a side of the decoder's coarse grid
_MASK_TOKEN = 2  # of the single mask, behind those of the object's score and of the IoU
_KINDS = ("box", "point", "both", "both")


def true_prompt(target: SceneObject) -> VisualPrompt:
    """The box and the point of an object."""
    return VisualPrompt(box_of(target.mask), (point_of(target.mask),), (1,))


def drawn_prompt(draw: Draw, target: SceneObject, kind: str) -> VisualPrompt:
    """A box whose sides are some pixels off, a point anywhere on the object, or both."""
    most = draw.between(0, _OFF)
    x0, y0, x1, y1 = (min(max(v + draw.between(-most, most), 0), SIZE - 1) for v in box_of(target.mask))
    ys, xs = np.nonzero(target.mask)
    at = draw.below(len(ys))
    point = () if kind == "box" else ((int(xs[at]), int(ys[at])),)
    return VisualPrompt(None if kind == "point" else (x0, y0, x1, y1), point, (1,) * len(point))


class PromptPretraining(L.LightningModule):
    """SAM2 at small sizes by boxes and points: BCE + dice on objects of scenes, from the embedded EVF-SAM2.

    The image encoder stays as it is; prompt encoder and mask decoder are trained. Auxiliary losses read the mask, coarsely,
    from what the decoder's transformer makes of the pixels and of the mask's token: without, prompts tell it nothing for a
    long time. Their heads are thrown away after. Validation reports the mean IoU of the
    objects by their box and point (`iou`), by their box alone, and by prompts as they are trained on (`iou_drawn`).

    Args:
        export: Folder that model.safetensors is written to, as fp16; it must not exist yet.
        start: Folder of an earlier export to go on from; null starts from the embedded EVF-SAM2.
        objects: Objects an image, at most.
        train_encoder: Whether the image encoder is trained as well.
        optimizer: Called with the parameters.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step.
    """

    def __init__(
        self,
        export: Path,
        start: Path | None = None,
        objects: int = 3,
        train_encoder: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,
    ) -> None:
        super().__init__()
        if export.exists():
            raise FileExistsError(f"{export} exists already: name another folder to write the segmenter to")
        self.export, self.start, self.objects, self.train_encoder = export, start, objects, train_encoder
        self.make_optimizer, self.make_lr_scheduler = optimizer, lr_scheduler
        self.scores: dict[str, list[Tensor]] = {}

    def configure_model(self) -> None:
        if hasattr(self, "segmenter"):
            return
        self.segmenter = tiny_sam2_prompt()
        first = read_file(find_file(self.start)) if self.start else embedded_segmenter().visual_model.state_dict()
        self.segmenter.sam2.load_state_dict(first)
        self.segmenter.sam2.image_encoder.requires_grad_(self.train_encoder)
        decoder = self.segmenter.sam2.sam_mask_decoder
        self.pixel_head = nn.Linear(decoder.transformer_dim, 1)
        self.token_head = nn.Linear(decoder.transformer_dim, _CELLS**2)
        decoder.transformer.register_forward_hook(self._keep_attended)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        scheduler = {"scheduler": self.make_lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, prompts, masks = [], [], []
        kind = _KINDS[batch_idx % len(_KINDS)]  # one a step, so that all prompts go through the decoder at once
        for group in batch.groups:
            draw = Draw(*(int(number) for number in group.key.split("-")[1:]), 3)
            for image, scene in zip(group.images, scenes_of_group(group)[0], strict=True):
                targets = draw.shuffled(scene.objects)[: self.objects]
                images.append(image)
                prompts.append([drawn_prompt(draw, target, kind) for target in targets])
                masks += [torch.from_numpy(target.mask) for target in targets]
        logits = torch.cat(self.segmenter.mask_logits(images, prompts))
        target = torch.stack(masks).float()
        loss = F.binary_cross_entropy_with_logits(logits, target) + dice(logits, target)
        tokens, pixels = self.attended
        coverage = F.adaptive_avg_pool2d(target[:, None], _CELLS).flatten(1)
        matched = F.binary_cross_entropy_with_logits(self.pixel_head(pixels)[..., 0], coverage)
        located = F.binary_cross_entropy_with_logits(self.token_head(tokens[:, _MASK_TOKEN]), coverage)
        self.log_dict({"train/mask": loss, "train/matched": matched, "train/located": located}, prog_bar=True)
        return loss + 2 * matched + 2 * located

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for group in batch.groups:
            draw = Draw(*(int(number) for number in group.key.split("-")[1:]), 3)
            for image, scene in zip(group.images, scenes_of_group(group)[0], strict=True):
                true = [true_prompt(o) for o in scene.objects]
                asked = {
                    "iou": true,
                    "iou_box": [VisualPrompt(prompt.box) for prompt in true],
                    "iou_drawn": [drawn_prompt(draw, o, "both") for o in scene.objects],
                }
                masks = torch.from_numpy(np.stack([o.mask for o in scene.objects]))
                for name, prompts in asked.items():
                    (found,) = self.segmenter.segment([image], [prompts])
                    self.scores.setdefault(name, []).append((found & masks).sum((1, 2)) / (found | masks).sum((1, 2)))

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": torch.cat(values).mean() for name, values in self.scores.items()}, prog_bar=True)
        self.scores = {}

    def _keep_attended(self, module: nn.Module, arguments: Any, output: tuple[Tensor, Tensor]) -> None:
        self.attended = output

    def on_fit_end(self) -> None:
        from safetensors.torch import save_file

        self.export.mkdir(parents=True)
        sam2 = self.segmenter.sam2
        state = {name: value.detach().contiguous() for name, value in sam2.state_dict().items()}
        state |= {name: value.detach().half().contiguous() for name, value in sam2.named_parameters()}
        save_file(state, self.export / "model.safetensors")
