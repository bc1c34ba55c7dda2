"""How far apart the responses of a policy lie, as numbers, a figure, and files that two runs are compared by."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_sal.callbacks.ranks import over_ranks
from lightning_sal.evaluation.embeddings import (
    EmbeddedResponses,
    figure,
    participation_ratio,
    spread,
    text_hash,
    write_embeddings,
)
from lightning_sal.pages.loggers import add_figure


class EmbeddingSpread(L.Callback):
    """Every few steps, measure and draw how far apart the sampled responses lie, and keep their embeddings.

    The embedding of a response is the hidden state of the last layer at its last token (the end of turn, where it is not
    truncated). Of the N responses of a step, on all processes, with l_k the eigenvalues of the covariance of embeddings x:

    | name | what |
    |---|---|
    | `train/embedding/spread` | mean squared distance to the centroid, 1/N sum_i (x_i - mean)^2 = sum_k l_k |
    | `train/embedding/participation_ratio` | directions that the spread fills, (sum_k l_k)^2 / sum_k l_k^2 |
    | `rollouts/embeddings` | a figure of the responses by two principal components, coloured by reward |

    The figure goes to loggers of TensorBoard, W&B and MLflow. The embeddings of `step` go to `embeddings-<step>.npz`, with
    reward, task, key and a hash of the text of each response, for
    `lightning_sal.evaluation.embeddings.compare_embeddings`. A step that sampled nothing (an SFT step), or fewer than two
    responses, is passed over, and the next one that did is taken in its place. Our modules fill `record.embeddings` from
    the pass that scores responses, so that this costs no further pass; responses that were not scored are left out.

    What it asks of others, and nothing more: after a step the module's `record`, where it has one, is None or has
    `groups` (B objects with `key` and `task`), `rollout.texts`, `rewards.total` (B,), `embeddings` (B, C) and, where rows
    of these mean nothing, `scored` (B,) bool.

    Args:
        every_n_steps: Optimisation steps from one measurement to the next, >= 1.
        folder: Where the files go, made where it does not exist; null for `embeddings` in the logger's folder.
        projector: Whether TensorBoard's Projector gets the embeddings too, as text of about 10 bytes a number.
    """

    def __init__(self, every_n_steps: int = 50, folder: Path | None = None, projector: bool = False) -> None:
        if every_n_steps < 1:
            raise ValueError("EmbeddingSpread: every_n_steps must be at least 1")
        self.every_n_steps, self.folder, self.projector = every_n_steps, folder, projector
        self._measured: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # By every process: which folder it is, one of them knows and the others are told.
        self._files = Path(self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "embeddings")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        step = max(trainer.global_step - 1, 0)  # as the scalars of this step are counted
        if step // self.every_n_steps == self._measured:
            return
        record: Any = getattr(pl_module, "record", None)
        parts = over_ranks([] if record is None else [_responses(record, step)])  # by every process, with or without
        if sum(len(part.embeddings) for part in parts) < 2:
            return
        self._measured = step // self.every_n_steps
        if not trainer.is_global_zero:
            return
        found = _joined(parts)
        for logger in trainer.loggers:
            logger.log_metrics(
                {
                    "train/embedding/spread": spread(found.embeddings),
                    "train/embedding/participation_ratio": participation_ratio(found.embeddings),
                },
                step=step,
            )
        self._files.mkdir(parents=True, exist_ok=True)
        write_embeddings(self._files / f"embeddings-{step:06d}.npz", found)
        if found.embeddings.isfinite().all():  # what is not is nowhere in a picture, and is in the scalars
            add_figure(trainer, "rollouts/embeddings", partial(figure, found), step)
            self._project(trainer, found)

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured = state_dict["measured"]

    def _project(self, trainer: L.Trainer, found: EmbeddedResponses) -> None:
        if not self.projector:
            return
        header = ["task", "key", "reward"]
        rows = list(zip(found.tasks, found.keys, (f"{reward:.3f}" for reward in found.rewards.tolist()), strict=True))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_embedding(found.embeddings, rows, None, found.step, "responses", header)


def _responses(record: Any, step: int) -> EmbeddedResponses:
    """The scored responses of a record, on the CPU."""
    scored = getattr(record, "scored", None)
    rows = list(range(len(record.embeddings))) if scored is None else scored.nonzero()[:, 0].tolist()
    return EmbeddedResponses(
        step,
        record.embeddings.detach()[rows].float().cpu(),
        record.rewards.total.detach().cpu()[rows].float(),
        tuple(record.groups[row].task for row in rows),
        tuple(record.groups[row].key for row in rows),
        tuple(text_hash(record.rollout.texts[row]) for row in rows),
    )


def _joined(parts: list[EmbeddedResponses]) -> EmbeddedResponses:
    return EmbeddedResponses(
        parts[0].step,
        torch.cat([part.embeddings for part in parts]),
        torch.cat([part.rewards for part in parts]),
        *(tuple(item for part in parts for item in getattr(part, name)) for name in ("tasks", "keys", "hashes")),
    )
