"""How the embedded policies are made: SFT from random weights with an auxiliary loss on the visual tokens.

Without that loss a model of this size learns one dominant colour and stops there.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.modules.sft import SFT
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samples import Batch
from lightning_sal.tiny.cells import BoxHead, CellHeads, scenes_of_group, sought
from lightning_sal.tiny.finding import unlooked

_CELLS = 8  # of a side, in which is told where lies what is asked for


class PolicyPretraining(SFT):
    """SFT of the small policy from random weights, all of it trained, with an auxiliary loss on its visual tokens.

    The first `vision_steps` train the vision tower on the auxiliary loss alone.

    Args:
        export: Folder that the trained policy is written to, as fp16; it must not exist yet.
        vision_steps: Steps on the auxiliary losses alone, before responses are learnt.
        boxes: Weight of an auxiliary loss that reads the boxes of objects from the visual tokens; 0 leaves it out.
        located: Weight of one that reads from the last token of the question where lies what is asked for, in 8 x 8 cells; 0
            leaves it out. Without it, the language model is late to look for what the question names.
        unlooking: Every so manieth step asks for no `<look>` blocks, and its responses lose theirs; 0 leaves them all.
        **kwargs: As for `SFT`.
    """

    def __init__(
        self,
        export: Path,
        vision_steps: int = 0,
        boxes: float = 0.0,
        located: float = 0.0,
        unlooking: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if export.exists():
            raise FileExistsError(f"{export} exists already: name another folder to write the policy to")
        self.export, self.vision_steps = export, vision_steps
        self.boxes, self.located, self.unlooking = boxes, located, unlooking

    def configure_model(self) -> None:
        if not hasattr(self, "policy"):
            self.policy = FastPolicy(self.policy_config)
            width = self.policy.model.config.text_config.hidden_size
            self.heads = CellHeads(width, cells=4)
            if self.boxes:
                self.box_head = BoxHead(width, cells=4)
            if self.located:
                self.target_head = nn.Linear(width, _CELLS**2)
            if self.located:  # heads that know nothing would at first undo what a trained tower knows
                for part in self.modules():
                    if isinstance(part, CellHeads | BoxHead):
                        part.apply(_zero)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        groups = batch.groups
        if self.unlooking:
            look = None if (batch_idx + 1) % self.unlooking else ""
            self.policy.config = replace(self.policy_config, look=look)
            if look is not None:
                groups = tuple(replace(group, response=unlooked(group.response or "")) for group in groups)
        prompts = self.policy.encode(groups)
        scenes = [scene for group in groups for scene in scenes_of_group(group)[0]]
        visual = torch.cat(prompts.visual)
        auxiliary, right = self.heads(visual, scenes)
        if self.boxes:
            distance = self.box_head(visual, scenes)
            self.log("train/box", distance, prog_bar=True)
            auxiliary = auxiliary + self.boxes * distance
        self.log_dict({f"train/{kind}": share for kind, share in right.items()})
        seeing = self.global_step < self.vision_steps
        if seeing and not self.located:
            return self.accumulate([auxiliary], 1)
        responses = [""] * len(groups) if seeing else self.policy.annotated(groups)
        tokens, mask = self.policy.encode_responses(responses)
        states: list[Tensor] = []
        with self._halfway(states):
            logp = self.policy.score(prompts, tokens, mask)
        supervised = -logp.sum() / mask.sum()
        if self.located:
            asked = states[0][range(len(groups)), self._question_ends(prompts.ids)]
            cells = self.target_head(F.rms_norm(asked, asked.shape[-1:]))
            covered = torch.from_numpy(np.stack([sought(group, _CELLS) for group in groups])).to(cells)
            found = F.binary_cross_entropy_with_logits(cells, covered)
            self.log("train/located", found, prog_bar=True)
            auxiliary = auxiliary + self.located * found
        if seeing:
            return self.accumulate([auxiliary], 1)
        self.log("train/sft_loss", supervised, prog_bar=True)
        return self.accumulate([supervised + auxiliary], 1)

    @contextmanager
    def _halfway(self, states: list[Tensor]) -> Iterator[None]:
        """Inside, `states` gets what reaches the last but one layer of language, from where answers can still read it."""
        layer = self.policy.backbone.language_model.layers[-2]
        keep = lambda _, arguments, named: states.append(arguments[0] if arguments else named["hidden_states"])  # noqa: E731
        hook = layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _question_ends(self, ids: Tensor) -> Tensor:
        """(P,) place of the last token of each question, which stands between the image and a line break."""
        tokenizer = self.policy.processor.tokenizer
        (line_break,) = tokenizer("\n", add_special_tokens=False)["input_ids"]
        behind = (ids == tokenizer.convert_tokens_to_ids("<|vision_end|>")).cumsum(1) > 0
        return (behind & (ids == line_break)).float().argmax(1) - 1

    def on_fit_end(self) -> None:
        save_policy(self.policy, self.export)


def _zero(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)


def save_policy(policy: FastPolicy, folder: Path) -> None:
    """Write a policy as a transformers folder with fp16 weights and its instructions."""
    model = copy.deepcopy(policy.model).half()
    model.save_pretrained(folder)
    policy.processor.save_pretrained(folder)
    (folder / "instructions.json").write_text(json.dumps(policy.stated, indent=1) + "\n")
