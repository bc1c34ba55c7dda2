"""How the embedded weights are made: the modules that `conf/tiny/` trains.

Both add an auxiliary loss that tells the image encoders where which colour and shape is. Without it the small models
learn one dominant colour and stop there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.modules.sft import SFT
from lightning_sal.samples import Batch, ImageGroup
from lightning_sal.tiny.scenes import COLOURS, SHAPES, SIZE, Scene, scenes_of

_KINDS = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "tone": 3}  # 0 is background
_CELLS = 4  # visual tokens of a side


def scenes_of_group(group: ImageGroup) -> tuple[list[Scene], list[str]]:
    """The scenes behind a scene group, drawn again from the numbers in its key."""
    task, seed, index = group.key.split("-")
    return scenes_of(int(seed), task, int(index), len(group.images))


def cell_labels(scene: Scene) -> np.ndarray:
    """(3, 16) colour, shape and tone of the object that fills most of each visual token; 0 under an eighth of it."""
    side = SIZE // _CELLS
    area = np.stack([o.mask.reshape(_CELLS, side, _CELLS, side).sum((1, 3)) for o in scene.objects]).reshape(-1, 16)
    winner = np.where(area.max(0) * 8 >= side * side, area.argmax(0) + 1, 0)
    colours, shapes = list(COLOURS), list(SHAPES)
    table = np.array(
        [(0, 0, 0)] + [(colours.index(o.colour) + 1, shapes.index(o.shape) + 1, 1 + o.salient) for o in scene.objects]
    )
    return table[winner].T


class PolicyPretraining(SFT):
    """SFT of the small policy from random weights, all of it trained, with an auxiliary loss on its visual tokens.

    The first `vision_steps` train the vision tower on the auxiliary loss alone: the mean cross-entropy of colour, shape
    and tone of each visual token, by linear heads that are thrown away after.

    Args:
        export: Folder that the trained policy is written to; it must not exist yet.
        vision_steps: Steps before the language model joins.
        early_export: Folder for the policy of step `early_step`, which is shipped as the early one.
        early_step: Optimisation step at which the early policy is written.
        **kwargs: As for `SFT`.
    """

    def __init__(
        self, export: Path, vision_steps: int = 0, early_export: Path | None = None, early_step: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for folder in (export, early_export):
            if folder is not None and folder.exists():
                raise FileExistsError(f"{folder} exists already: name another folder to write the policy to")
        self.export, self.vision_steps = export, vision_steps
        self.early_export, self.early_step = early_export, early_step

    def configure_model(self) -> None:
        super().configure_model()
        if not hasattr(self, "heads"):
            width = self.policy.qwen.config.text_config.hidden_size
            self.heads = nn.ModuleDict({kind: nn.Linear(width, count) for kind, count in _KINDS.items()})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        prompts = self.policy.encode(batch.groups)
        auxiliary = self._auxiliary(torch.cat(prompts.visual), batch.groups)
        if self.global_step < self.vision_steps:
            return self.accumulate([auxiliary])
        tokens, mask = self.policy.encode_responses([group.response or "" for group in batch.groups])
        logp = self.policy.score(prompts, tokens, mask)
        supervised = -logp.sum() / mask.sum()
        self.log("train/sft_loss", supervised, prog_bar=True)
        return self.accumulate([supervised + auxiliary])

    def _auxiliary(self, visual: Tensor, groups: tuple[ImageGroup, ...]) -> Tensor:
        labels = [cell_labels(scene) for group in groups for scene in scenes_of_group(group)[0]]
        target = torch.from_numpy(np.concatenate(labels, axis=1)).to(visual.device)
        losses = []
        for row, (kind, head) in zip(target, self.heads.items(), strict=True):
            logits = head(visual)
            losses.append(F.cross_entropy(logits, row))
            hit = (logits.argmax(1) == row)[row > 0].float().mean()
            self.log(f"train/{kind}", hit, prog_bar=kind == "shape")
        return torch.stack(losses).mean()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.early_export is not None and self.global_step == self.early_step:
            save_policy(self.policy, self.early_export)

    def on_fit_end(self) -> None:
        save_policy(self.policy, self.export)


def save_policy(policy: Any, folder: Path) -> None:
    """Write a policy as a transformers folder with fp16 weights and its instructions."""
    import copy
    import json

    model = copy.deepcopy(policy.qwen).half()
    model.save_pretrained(folder, safe_serialization=True)
    policy.processor.save_pretrained(folder)
    (folder / "instructions.json").write_text(json.dumps(policy.instructions, indent=1) + "\n")
