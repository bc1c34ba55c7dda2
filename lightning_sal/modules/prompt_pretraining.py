"""How the embedded segmenter by boxes and points is made: SAM2 on the image encoder of the embedded EVF-SAM2.

Two things make it learn at this size. Attention between prompts and image begins as a match of their position codes, since
random projections to six channels a head do not tell places apart. And an auxiliary loss asks the mask's token, and the
image where prompts have marked it, which cells the object covers. Without both, masks depend on no prompt after 400 steps.
"""

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
from lightning_sal.segmenters.tiny import embedded_evf_sam2, tiny_sam2_prompt
from lightning_sal.tiny.cells import scenes_of_group
from lightning_sal.tiny.draw import Draw
from lightning_sal.tiny.finding import box_of, point_of
from lightning_sal.tiny.scenes import SIZE, SceneObject

_CELLS = 7  # of a side of the grid that the decoder attends to
_MASK_TOKEN = 2  # of what the decoder's transformer gives: behind those of the object's score and of IoU
_SHARP = 2.0  # scale of the position codes that are matched
_LOWEST = 4  # frequencies that are left out, since they hardly tell places apart
_OFF = 6  # most pixels that a side of a box is off while training
_KINDS = ("box", "point", "both", "both")


def true_prompt(target: SceneObject) -> VisualPrompt:
    """The box and the point of an object."""
    return VisualPrompt(box_of(target.mask), (point_of(target.mask),), (1,))


def drawn_prompt(draw: Draw, target: SceneObject) -> VisualPrompt:
    """A box whose sides are some pixels off, a point anywhere on the object, or both."""
    kind = draw.choice(_KINDS)
    most = draw.between(0, _OFF)
    x0, y0, x1, y1 = (min(max(v + draw.between(-most, most), 0), SIZE - 1) for v in box_of(target.mask))
    ys, xs = np.nonzero(target.mask)
    at = draw.below(len(ys))
    point = () if kind == "box" else ((int(xs[at]), int(ys[at])),)
    return VisualPrompt(None if kind == "point" else (x0, y0, x1, y1), point, (1,) * len(point))


def match_positions(sam: Any) -> None:
    """Let the cross-attention of a mask decoder begin as a match of position codes: each head compares some frequencies."""
    matrix = sam.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    frequencies = matrix.float().norm(dim=0).argsort().tolist()[_LOWEST:]
    transformer = sam.sam_mask_decoder.transformer
    layers = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        layers += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in layers:
        shape, heads = attention.q_proj.weight.shape, attention.num_heads
        each = shape[0] // heads // 2  # a sine and a cosine of each frequency
        weight = 0.02 * torch.randn(shape)
        for head in range(heads):
            for at, frequency in enumerate(frequencies[head::heads][:each]):
                row = 2 * each * head + at
                weight[row, frequency] += _SHARP
                weight[row + each, matrix.shape[1] + frequency] += _SHARP
        with torch.no_grad():
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight.copy_(weight)
                projection.bias.zero_()


class PromptPretraining(L.LightningModule):
    """SAM2 at small sizes by boxes and points: BCE + dice on objects of scenes, and which cells each object covers.

    The image encoder is that of the embedded EVF-SAM2 and stays as it is; prompt encoder and mask decoder are trained from
    random weights. Validation reports the mean IoU of the objects by their box and point (`iou`), by their box alone
    (`iou_box`), and by prompts as they are trained on (`iou_drawn`).

    Args:
        export: Folder that model.safetensors is written to, as fp16; it must not exist yet.
        objects: Objects an image, at most.
        optimizer: Called with the parameters.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step.
    """

    def __init__(
        self,
        export: Path,
        objects: int = 3,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,
    ) -> None:
        super().__init__()
        if export.exists():
            raise FileExistsError(f"{export} exists already: name another folder to write the segmenter to")
        self.export, self.objects = export, objects
        self.make_optimizer, self.make_lr_scheduler = optimizer, lr_scheduler
        self.scores: dict[str, list[Tensor]] = {}

    def configure_model(self) -> None:
        if hasattr(self, "segmenter"):
            return
        self.segmenter = tiny_sam2_prompt()
        sam = self.segmenter.sam2
        known = embedded_evf_sam2().visual_model.state_dict()
        new = ("sam_mask_decoder.", "sam_prompt_encoder.")
        fresh = {name: value for name, value in sam.state_dict().items() if name.startswith(new)}
        sam.load_state_dict({name: value for name, value in known.items() if not name.startswith(new)} | fresh)
        match_positions(sam)
        sam.image_encoder.requires_grad_(False)
        width = sam.no_mem_embed.shape[-1]
        self.token_head, self.cell_head = nn.Linear(width, _CELLS**2), nn.Linear(width, 1)
        sam.sam_mask_decoder.transformer.register_forward_hook(self._keep)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        scheduler = {"scheduler": self.make_lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, prompts, masks = [], [], []
        for group in batch.groups:
            draw = Draw(*(int(number) for number in group.key.split("-")[1:]), 3)
            for image, scene in zip(group.images, scenes_of_group(group)[0], strict=True):
                targets = draw.shuffled(scene.objects)[: self.objects]
                images.append(image)
                prompts.append([drawn_prompt(draw, target) for target in targets])
                masks += [torch.from_numpy(target.mask) for target in targets]
        self.kept: list[tuple[Tensor, Tensor]] = []
        logits = torch.cat(self.segmenter.mask_logits(images, prompts))
        target = torch.stack(masks).float()
        loss = F.binary_cross_entropy_with_logits(logits, target) + dice(logits, target)
        self.log("train/loss", loss, prog_bar=True)
        asked = [prompt for of_image in prompts for prompt in of_image]
        order = [n for part, _ in self.segmenter._alike(asked) for n in part]  # in which the decoder took them
        covered = F.adaptive_avg_pool2d(target[:, None], _CELLS).flatten(1)[order]
        tokens, cells = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        located = F.binary_cross_entropy_with_logits(self.token_head(tokens), covered)
        marked = F.binary_cross_entropy_with_logits(self.cell_head(cells)[..., 0], covered)
        self.log_dict({"train/located": located, "train/marked": marked})
        return loss + 2 * located + 2 * marked

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for group in batch.groups:
            draw = Draw(*(int(number) for number in group.key.split("-")[1:]), 3)
            for image, scene in zip(group.images, scenes_of_group(group)[0], strict=True):
                true = [true_prompt(o) for o in scene.objects]
                asked = {
                    "iou": true,
                    "iou_box": [VisualPrompt(prompt.box) for prompt in true],
                    "iou_drawn": [drawn_prompt(draw, o) for o in scene.objects],
                }
                masks = torch.from_numpy(np.stack([o.mask for o in scene.objects]))
                for name, prompts in asked.items():
                    (found,) = self.segmenter.segment([image], [prompts])
                    self.scores.setdefault(name, []).append((found & masks).sum((1, 2)) / (found | masks).sum((1, 2)))

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": torch.cat(values).mean() for name, values in self.scores.items()}, prog_bar=True)
        self.scores = {}

    def _keep(self, module: nn.Module, arguments: Any, output: tuple[Tensor, Tensor]) -> None:
        if self.training:
            tokens, cells = output
            self.kept.append((tokens[:, _MASK_TOKEN], cells))

    def on_fit_end(self) -> None:
        from safetensors.torch import save_file

        self.export.mkdir(parents=True)
        sam2 = self.segmenter.sam2
        state = {name: value.detach().contiguous() for name, value in sam2.state_dict().items()}
        state |= {name: value.detach().half().contiguous() for name, value in sam2.named_parameters()}
        save_file(state, self.export / "model.safetensors")
