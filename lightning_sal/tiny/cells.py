"""The auxiliary task of the embedded models: which colour, shape and tone is where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.samples import ImageGroup
from lightning_sal.tiny.finding import FINDING, box_of, find_of
from lightning_sal.tiny.scenes import COLOURS, SHAPES, SIZE, Scene, scenes_of

_KINDS = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "tone": 3}  # 0 is background
_COLOUR, _SHAPE = list(COLOURS), list(SHAPES)


def scenes_of_group(group: ImageGroup) -> tuple[list[Scene], list[str]]:
    """The scenes and expressions behind a scene group, drawn again from the numbers in its key."""
    task, seed, index = group.key.split("-")
    if task in FINDING:
        return [find_of(int(seed), task, int(index)).scene], []
    return scenes_of(int(seed), task, int(index), len(group.images))


def sought(group: ImageGroup, cells: int) -> np.ndarray:
    """(cells^2,) share of each cell that is covered by what a group asks for."""
    task, seed, index = group.key.split("-")
    side = SIZE // cells
    return find_of(int(seed), task, int(index)).mask.reshape(cells, side, cells, side).mean((1, 3)).ravel()


def cell_labels(scene: Scene, cells: int) -> np.ndarray:
    """(3, cells^2) colour, shape and tone of the object that fills most of each cell; 0 under an eighth of the cell."""
    kinds = [(_COLOUR.index(o.colour) + 1, _SHAPE.index(o.shape) + 1, 1 + o.salient) for o in scene.objects]
    return np.array([(0, 0, 0), *kinds])[_winners(scene, cells)].T


def cell_boxes(scene: Scene, cells: int) -> np.ndarray:
    """(cells^2, 4) box of the object that fills most of each cell, in shares of the scene; -1 where there is none."""
    boxes = [box_of(o.mask) for o in scene.objects]
    return np.array([(-SIZE,) * 4, *boxes], np.float32)[_winners(scene, cells)] / SIZE


def _winners(scene: Scene, cells: int) -> np.ndarray:
    """(cells^2,) 1 + number of the object that fills most of each cell; 0 under an eighth of the cell."""
    side = SIZE // cells
    area = np.stack([o.mask.reshape(cells, side, cells, side).sum((1, 3)).ravel() for o in scene.objects])
    return np.where(area.max(0) * 8 >= side * side, area.argmax(0) + 1, 0)


class CellHeads(nn.Module):
    """Linear heads that read colour, shape and tone from the features of each cell; thrown away after the training.

    Args:
        width: Channels of the features.
        cells: Cells of a side, a divisor of the scenes' size.
    """

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.heads = nn.ModuleDict({kind: nn.Linear(width, count) for kind, count in _KINDS.items()})

    def forward(self, features: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of the three, and the share of object cells that each reads rightly.

        Args:
            features: (scenes * cells^2, width), row by row of each scene in turn.
            scenes: What the features are of.
        """
        labels = np.concatenate([cell_labels(scene, self.cells) for scene in scenes], axis=1)
        losses, right = [], {}
        for (kind, head), target in zip(self.heads.items(), torch.from_numpy(labels).to(features.device), strict=True):
            logits = head(features)
            losses.append(F.cross_entropy(logits, target))
            right[kind] = (logits.argmax(1) == target)[target > 0].float().mean()
        return torch.stack(losses).mean(), right


class BoxHead(nn.Module):
    """A linear head that reads the box of the object in each cell from its features; thrown away after the training.

    Args:
        width: Channels of the features.
        cells: Cells of a side, a divisor of the scenes' size.
    """

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.head = nn.Linear(width, 4)

    def forward(self, features: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Mean distance of the sides, in shares of the scene, over the cells that an object fills.

        Args:
            features: (scenes * cells^2, width), row by row of each scene in turn.
            scenes: What the features are of.
        """
        target = torch.from_numpy(np.concatenate([cell_boxes(scene, self.cells) for scene in scenes]))
        filled = (target[:, 0] >= 0).to(features.device)
        return F.l1_loss(self.head(features[filled]), target.to(features)[filled])
