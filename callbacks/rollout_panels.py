"""Pictures of what the policy says during training, in the loggers that show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from textwrap import indent, wrap
from typing import Any

import lightning as L

from lightning_sal.pages.drawing import gallery, panel
from lightning_sal.pages.loggers import boards
from lightning_sal.pages.map_panel import map_panel
from lightning_sal.tasks.blocks import answer_on_a_line


class RolloutPanels(L.Callback):
    """Every few steps, draw rollouts: image, ground truth, predicted mask, and the words with their reward and faults.

    Where a project has no images, the words alone are drawn.

    Adds an image `rollouts/<task>` and a text of the same name to each logger of TensorBoard, W&B or MLflow. Where
    attribution maps were computed for a reward, an image `maps/<task>` shows each label of the answer over each image, on
    one scale a response. A step that sampled nothing (an SFT step) is passed over, and the next one that did is drawn in
    its place.

    What it asks of others, and nothing more: after a step the module's `record`, where it has one, is None or has

    - `groups`, B objects with `key` and `task`;
    - `rollout.texts`, B responses;
    - `rewards.total`, (B,) rewards;
    - `rewards.reasons`, where there is one: name of a reward term -> B reasons, each a line or None;
    - where there are images: in each of `groups` the `images` (K tensors (H, W, 3) uint8) and `masks` (K boolean tensors
      (N, H, W), or None), and `responses`, B objects with `masks`: the K predicted masks (N, H, W), or None;
    - where there are maps: in each of `responses` the `maps` (for each label K maps, before the ReLU) and in its
      `answer.labels_at` where in the text each label stands.

    Args:
        every_n_steps: Optimisation steps from one drawing to the next, >= 1.
        max_groups: Most responses of each task in one drawing, >= 1: one to each image group first, then, of algorithms
            that sample several, the second to each, and so on.
    """

    def __init__(self, every_n_steps: int = 50, max_groups: int = 4) -> None:
        if every_n_steps < 1 or max_groups < 1:
            raise ValueError("RolloutPanels: every_n_steps and max_groups must be at least 1")
        self.every_n_steps, self.max_groups = every_n_steps, max_groups
        self._drawn: int | None = None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        record: Any = getattr(pl_module, "record", None)
        step = max(trainer.global_step - 1, 0)  # as the scalars of this step are counted
        if record is None or step // self.every_n_steps == self._drawn or not trainer.is_global_zero:
            return
        self._drawn = step // self.every_n_steps
        shown = boards(trainer)
        for task in dict.fromkeys(group.task for group in record.groups) if shown else ():
            rows = _in_turn(record.groups, task)[: self.max_groups]
            pictures = {"rollouts": [self._panel(record, row) for row in rows]}
            if any(_maps(record, row) is not None for row in rows):
                pictures["maps"] = [_map_panel(record, row) for row in rows]
            text = "\n\n".join(self._markdown(record, row) for row in rows)
            drawn = {name: gallery(panels) for name, panels in pictures.items()}
            for board in shown:
                for name, picture in drawn.items():
                    board.add_image(f"{name}/{task}", picture, step)
                board.add_text(f"rollouts/{task}", text, step)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._drawn = state_dict["drawn"]

    def _panel(self, record: Any, row: int) -> Any:
        group, rewards, text = record.groups[row], record.rewards, record.rollout.texts[row]
        title = " · ".join([_headline(record, row), *_reasons(rewards, row)])
        if not (images := getattr(group, "images", ())):
            return panel((), None, (), text, title=title)
        found = record.responses[row].masks
        return panel(images, group.masks, found, text, title=title)

    def _markdown(self, record: Any, row: int) -> str:
        lines = [f"**{_headline(record, row)}**", *_reasons(record.rewards, row)]
        return "\n\n".join([*lines, _block(record.rollout.texts[row])])


def _in_turn(groups: Sequence[Any], task: str) -> list[int]:
    """Rows of a task: the first of each group, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for row, group in enumerate(groups):
        if group.task == task:
            turns.append((seen[group.key], row))
            seen[group.key] += 1
    return [row for _, row in sorted(turns)]


def _maps(record: Any, row: int) -> Any:
    """The maps of the labels of a response, or None where none were computed."""
    return getattr(record.responses[row], "maps", None) if getattr(record.groups[row], "images", ()) else None


def _map_panel(record: Any, row: int) -> Any:
    maps, title = _maps(record, row) or (), _headline(record, row)
    if not maps:
        return map_panel((), (), (), f"{title} · no map: there is no answer, or no reasoning to look through")
    if not all(each.isfinite().all() for label in maps for each in label):
        return map_panel((), (), (), f"{title} · no map: it is not finite")
    labels = [record.rollout.texts[row][slice(*place)] for place in record.responses[row].answer.labels_at]
    return map_panel(record.groups[row].images, maps, labels, title)


def _headline(record: Any, row: int) -> str:
    return f"{record.groups[row].key} · reward {float(record.rewards.total[row]):.3f}"


def _block(text: str) -> str:
    """A response as an indented block, which keeps its tags, in lines of a length that TensorBoard shows whole."""
    lines = answer_on_a_line(text).split("\n")
    return indent("\n".join(part for line in lines for part in wrap(line, 110) or [""]), "    ", lambda _: True)


def _reasons(rewards: Any, row: int) -> list[str]:
    reasons = getattr(rewards, "reasons", {})
    return [f"{name}: {lines[row]}" for name, lines in reasons.items() if lines[row] is not None]
