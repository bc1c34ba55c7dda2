"""Sampled responses of a training as files: one JSON line each."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L

from lightning_sal.callbacks.ranks import over_ranks
from lightning_sal.files.writing import appending

NAME = re.compile(r"rollouts(-\d+)?\.jsonl")


class RolloutWriter(L.Callback):
    """Write each sampled response of a training as a line of JSON, for `lightning-sal types` and for reading.

    One file, `rollouts.jsonl`, or with several processes `rollouts-<rank>.jsonl` each, with lines

        {"step", "rank", "task", "key", "index", "text", "reward", "terms", "confidence", "advantage", "tokens", "truncated"}

    `step` counts from 0, as in TensorBoard; `index` counts the responses to one prompt at one step; `terms` are the terms
    of the reward before weighting, by name; `tokens` is the length with the end-of-turn token.

    The lines of a step are appended at its end, so a run that is stopped leaves what it got to. A folder that holds
    rollouts is refused before the first step, unless the run goes on from a checkpoint: it then appends, after dropping
    the lines of steps after that checkpoint, which are done again, and a line that a killed process left unfinished.

    What it asks of others, and nothing more: after a step the module's `record` is None, or has `groups` (B objects with
    `key` and `task`), `rollout.texts`, `rollout.mask` (B, T), `rollout.truncated`, `rewards.total`, `rewards.terms`,
    `confidence` and `advantages`.

    Args:
        folder: Where to write; made where it does not exist. Nodes that do not share it have one each.
        every_n_steps: Optimisation steps from one that is written to the next, >= 1; one that sampled nothing (an SFT
            step) gives way to the next one that did.
    """

    def __init__(self, folder: Path, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError("RolloutWriter: every_n_steps must be at least 1")
        self.folder, self.every_n_steps = Path(folder), every_n_steps
        self._written: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        names = [f"rollouts-{rank}.jsonl" for rank in range(trainer.world_size)] if trainer.world_size > 1 else []
        own = names[trainer.global_rank] if names else "rollouts.jsonl"
        old = [path for path in sorted(self.folder.glob("rollouts*.jsonl")) if NAME.fullmatch(path.name)]
        found = over_ranks(old)  # so that no process starts to write before all have looked, and all refuse alike
        if found and not trainer.global_step:
            raise FileExistsError(f"{found[0]}: rollouts of an earlier run are there already; name another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in old:  # the first process takes those of others, of a run of more of them
            if path.name == own or (trainer.is_global_zero and path.name not in names):
                _drop(path, trainer.global_step)
        self._file = self.folder / own

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        record: Any = pl_module.record
        step = max(trainer.global_step - 1, 0)  # as the scalars of this step are counted
        if record is None or step // self.every_n_steps == self._written:
            return
        self._written = step // self.every_n_steps
        about = {"step": step, "rank": trainer.global_rank}
        with appending(self._file) as file:
            file.write("".join(json.dumps(about | line) + "\n" for line in _lines(record)))

    def state_dict(self) -> dict[str, Any]:
        return {"written": self._written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._written = state_dict["written"]


def _lines(record: Any) -> Iterator[dict[str, Any]]:
    """The fields of each response, but for what is known of the step."""
    seen: Counter[tuple[str, str]] = Counter()
    columns = {
        "text": list(record.rollout.texts),
        "reward": record.rewards.total.tolist(),
        "confidence": record.confidence.tolist(),
        "advantage": record.advantages.tolist(),
        "tokens": record.rollout.mask.sum(1).tolist(),
        "truncated": record.rollout.truncated.tolist(),
    }
    terms = {name: values.tolist() for name, values in record.rewards.terms.items()}
    for row, group in enumerate(record.groups):
        prompt = group.task, group.key
        own = {"task": group.task, "key": group.key, "index": seen[prompt]}
        own |= {name: values[row] for name, values in columns.items()}
        yield own | {"terms": {name: values[row] for name, values in terms.items()}}
        seen[prompt] += 1


def _drop(path: Path, step: int) -> None:
    """Drop the lines from `step` on, which come last, and one without an end."""
    with path.open("rb+") as file:
        end = 0
        for number, line in enumerate(file, 1):
            try:
                if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                    break
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}:{number}: not a line of RolloutWriter: {error}") from None
            end += len(line)
        else:
            return
        dropped = 1 + sum(1 for _ in file)
        file.truncate(end)
    print(f"{path}: {dropped} lines from step {step} on are dropped, since the run goes on from there")
