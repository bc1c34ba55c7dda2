"""How the embedded segmenter is made: a small EVF-SAM2 from random weights, on the scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_sal.samples import Batch
from lightning_sal.segmenters.evf_sam2 import EVFSAM2
from lightning_sal.segmenters.tiny import tiny_evf_sam2
from lightning_sal.tasks import SEMANTIC
from lightning_sal.tiny.cells import CellHeads, scenes_of_group
from lightning_sal.tiny.draw import Draw
from lightning_sal.tiny.scenes import COLOURS, SHAPES, SIZE, Scene
from lightning_sal.tiny.segmenter_tokenizer import build_word_tokenizer

_PATCHES = 8  # of a side in BEiT-3
_PHRASES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def scene_expressions(draw: Draw, scene: Scene, count: int) -> list[tuple[str, np.ndarray]]:
    """`count` expressions on a scene with their masks: objects, `[semantic]` shapes, near misses.

    The mask of a near miss is empty. It has one word of an object of the scene exchanged such that no object fits it.
    """
    phrases = {o.phrase: o.mask for o in scene.objects}
    shapes = {o.shape for o in scene.objects}
    drawn = []
    for _ in range(count):
        target, kind = draw.choice(scene.objects), draw.below(100)
        if kind < 22:
            shape = draw.choice(sorted(shapes)) if kind < 17 else draw.choice(SHAPES)
            masks = [o.mask for o in scene.objects if o.shape == shape] or [np.zeros_like(target.mask)]
            drawn.append((f"{SEMANTIC} {shape}", np.logical_or.reduce(masks)))
        elif kind < 42:
            near = [p for p in _PHRASES if p not in phrases and (target.colour in p) != (target.shape in p)]
            drawn.append((draw.choice(near), np.zeros_like(target.mask)))
        else:
            salient = draw.choice(scene.salient) if kind < 70 else target
            drawn.append((salient.phrase, salient.mask))
    return drawn


class SegmenterPretraining(L.LightningModule):
    """EVF-SAM2 at small sizes from random weights: BCE + dice on expressions of scenes, with auxiliary losses.

    The auxiliary losses read colour, shape and tone from SAM2's embedding and from BEiT-3's patches, and the expression's
    mask, coarsely, from BEiT-3's patches and from its class token: without the last the prompt tells the decoder nothing
    for a long time. Their heads are thrown away after. Validation reports mean IoU over expressions (an empty ground truth
    counts 1 where nothing is predicted, 0 otherwise), at the image's own size.

    Args:
        export: Folder that the segmenter is written to, as fp16; it must not exist yet.
        start: Folder of an earlier export to go on from; null starts from random weights.
        expressions: Expressions an image.
        optimizer: Called with the parameters.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step.
    """

    def __init__(
        self,
        export: Path,
        start: Path | None = None,
        expressions: int = 4,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable = torch.optim.lr_scheduler.ConstantLR,
    ) -> None:
        super().__init__()
        if export.exists():
            raise FileExistsError(f"{export} exists already: name another folder to write the segmenter to")
        self.export, self.start, self.expressions = export, start, expressions
        self.make_optimizer, self.make_lr_scheduler = optimizer, lr_scheduler
        self.scores: dict[str, list[Tensor]] = {}

    def configure_model(self) -> None:
        if hasattr(self, "segmenter"):
            return
        texts = [*_PHRASES, *(f"{SEMANTIC} {shape}" for shape in SHAPES)] * 2
        self.segmenter = tiny_evf_sam2(build_word_tokenizer(texts))
        if self.start is not None:
            self.segmenter.load_state_dict(EVFSAM2.from_pretrained(self.start).state_dict())
        self.cell_heads = CellHeads(self.segmenter.config["out_dim"], cells=7)
        self.patch_cell_heads = CellHeads(self.segmenter.config["hidden_size"], cells=_PATCHES)
        self.patch_head = nn.Linear(self.segmenter.config["hidden_size"], 1)
        self.class_head = nn.Linear(self.segmenter.config["hidden_size"], _PATCHES**2)
        self.segmenter.beit3.encoder.layer_norm.register_forward_hook(self._keep_fused)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        scheduler = {"scheduler": self.make_lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        scenes, images, index, texts, masks = self._expressions(batch)
        features = self.segmenter.image_features(images)
        ids = [torch.tensor(row) for row in self.segmenter.tokenize(texts)]
        low = self.segmenter.low_res_logits(
            features, index, self.segmenter.beit_images(images), *self.segmenter.collate(ids)
        )
        logits = F.interpolate(low[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
        target = F.adaptive_avg_pool2d(masks.float()[:, None], logits.shape[-1])[:, 0]
        cells, right = self.cell_heads(features.embedding.permute(0, 2, 3, 1).flatten(0, 2), scenes)
        patches = self.fused[:, 1 : 1 + _PATCHES**2]
        patch_cells, patch_right = self.patch_cell_heads(patches.flatten(0, 1), [scenes[i] for i in index])
        coverage = F.adaptive_avg_pool2d(masks.float()[:, None], _PATCHES).flatten(1)
        matched = F.binary_cross_entropy_with_logits(self.patch_head(patches)[..., 0], coverage)
        located = F.binary_cross_entropy_with_logits(self.class_head(self.fused[:, 0]), coverage)
        loss = F.binary_cross_entropy_with_logits(logits, target) + dice(logits, target)
        self.log_dict({"train/mask": loss, "train/matched": matched, "train/located": located})
        self.log_dict({"train/shape": right["shape"], "train/patch_shape": patch_right["shape"]})
        return loss + matched + located + 0.5 * cells + 0.5 * patch_cells

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        _, images, index, texts, masks = self._expressions(batch)
        per_image: list[list[str]] = [[] for _ in images]
        for at, text in zip(index.tolist(), texts, strict=True):
            per_image[at].append(text)
        predicted = torch.cat(self.segmenter.segment(images, per_image))
        union = (predicted | masks).sum((1, 2))
        iou = torch.where(union > 0, (predicted & masks).sum((1, 2)) / union.clamp(min=1), 1.0)
        empty = ~masks.any(2).any(1)
        semantic = torch.tensor([text.startswith(SEMANTIC) for text in texts])
        for name, rows in {
            "iou": torch.ones_like(empty),
            "iou_present": ~empty,
            "iou_semantic": semantic & ~empty,
            "empty_right": empty,
        }.items():
            self.scores.setdefault(name, []).append(iou[rows])

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": torch.cat(values).mean() for name, values in self.scores.items()})
        self.scores = {}

    def on_fit_end(self) -> None:
        self.segmenter.save_pretrained(self.export, torch.float16)

    def _keep_fused(self, module: nn.Module, arguments: Any, output: Tensor) -> None:
        self.fused = output

    def _expressions(self, batch: Batch) -> tuple[list[Scene], list[Tensor], Tensor, list[str], Tensor]:
        """Scenes, images, and for each of N expressions the number of its image, its text and its (N, H, W) mask."""
        scenes, images, index, texts, masks = [], [], [], [], []
        for group in batch.groups:
            draw = Draw(*(int(number) for number in group.key.split("-")[1:]), 2)
            for scene, image in zip(scenes_of_group(group)[0], group.images, strict=True):
                for text, mask in scene_expressions(draw, scene, self.expressions):
                    index.append(len(images))
                    texts.append(text)
                    masks.append(mask)
                scenes.append(scene)
                images.append(image)
        assert masks[0].shape == (SIZE, SIZE)
        return scenes, images, torch.tensor(index), texts, torch.from_numpy(np.stack(masks))


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Mean dice loss 1 - (2 |PT| + 1) / (|P| + |T| + 1) of (N, H, W) logits and soft targets."""
    p = logits.sigmoid().flatten(1)
    t = target.flatten(1)
    return (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean()
