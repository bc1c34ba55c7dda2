"""What every datamodule of image groups shares: its streams, their place in the checkpoint, and bad samples."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L

from lightning_sal.datasets.brief import WithoutReasoning
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.streams import EvaluationLoader, Stream
from lightning_sal.samples import Batch, Phased

FEWEST_SAMPLES = 100
STAGES = {"fit": (True, ("val",)), "validate": (False, ("val",)), "test": (False, ("test",))}  # trains, evaluates


class ImageGroupsDataModule(L.LightningDataModule):
    """Feeds `Batch`es to fit, validate and test; a subclass says from which datasets.

    A sample that cannot be read is skipped with a warning, counted in the log as `data/unreadable`, and ends the run
    once such samples exceed a share of those seen.

    Args:
        batch_size: Image groups of a batch on one rank.
        rl_batch_size: Those of a batch of stream "rl", the prompts that an RL step samples for; null for `batch_size`.
        num_workers: Processes that read ahead; 0 reads in the main process.
        seed: Seed of the order of samples, >= 0.
        steps_per_epoch: Batches of a training epoch; null for one pass over the data.
        max_unreadable: Share of the samples seen, in [0, 1], that may be unreadable; taken of at least 100 samples, so
            that one bad file among the first few ends no run.
        reasoning: Whether responses reason before they answer; without, the instruction, the annotated responses and the
            format reward know of the answer block alone.
    """

    drawn = False  # whether its samples are the scenes that the embedded models know

    def __init__(
        self,
        batch_size: int = 1,
        rl_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        steps_per_epoch: int | None = None,
        max_unreadable: float = 0.01,
        reasoning: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= max_unreadable <= 1:
            raise ValueError(f"max_unreadable is a share in [0, 1], not {max_unreadable}")
        rl_batch_size = batch_size if rl_batch_size is None else rl_batch_size
        if min(batch_size, rl_batch_size) < 1 or num_workers < 0:
            raise ValueError(
                "batch_size and rl_batch_size must be at least 1 and num_workers at least 0, not "
                f"{batch_size}, {rl_batch_size}, {num_workers}"
            )
        self.batch_size, self.rl_batch_size = batch_size, rl_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.steps_per_epoch, self.max_unreadable = steps_per_epoch, max_unreadable
        self.reasoning = reasoning
        self.streams: dict[str, Stream] = {}
        self.loaders: dict[str, EvaluationLoader] = {}
        self.seen = self.unreadable = 0

    def training_datasets(self) -> dict[str, Any]:
        """Name of a stream -> dataset as `Stream` takes it; a run that only evaluates never asks."""
        raise NotImplementedError

    @property
    def training_tasks(self) -> list[str]:
        """The tasks that training draws samples of; empty where that shows in the samples alone."""
        return []

    @property
    def known_tasks(self) -> list[str]:
        """The tasks that it names, so that a run that cannot serve them is refused before any work; those that show in the
        samples alone are missing."""
        return self.training_tasks

    def evaluation_dataset(self, split: str) -> Any | None:
        """The map-style dataset of "val" or "test", or None where there is none."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        if stage not in STAGES:
            raise ValueError(f"{type(self).__name__} feeds fit, validate and test, not {stage}")
        rank, world_size = self._place
        self.streams, self.loaders = {}, {}
        self.seen = self.unreadable = 0
        training, splits = STAGES[stage]
        for number, (name, dataset) in enumerate(self.training_datasets().items() if training else ()):
            self.streams[name] = Stream(
                self._asked(dataset),
                self.rl_batch_size if name == "rl" else self.batch_size,
                seed=self.seed + number,  # so that streams over the same photographs do not run side by side
                num_workers=self.num_workers,
                length=self.steps_per_epoch,
                rank=rank,
                world_size=world_size,
            )
        for split in splits:
            if (loader := self._evaluation_loader(split)) is not None:
                self.loaders[split] = loader
        if not (self.streams if training else self.loaders):
            raise ValueError(
                f"{type(self).__name__}: no data to {stage} on; give `{'train' if training else splits[0]}`"
            )

    @property
    def _place(self) -> tuple[int, int]:
        """The rank of this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _evaluation_loader(self, split: str) -> EvaluationLoader | None:
        dataset, (rank, world_size) = self.evaluation_dataset(split), self._place
        if dataset is None:
            return None
        options: dict[str, Any] = {"num_workers": self.num_workers, "rank": rank, "world_size": world_size}
        return EvaluationLoader(self._asked(dataset), self.batch_size, **options)

    def _asked(self, dataset: Any) -> Any:
        return dataset if self.reasoning else WithoutReasoning(dataset)

    def train_dataloader(self) -> Stream | dict[str, Stream]:
        """The one stream, or all by name, as the interleaving of phases takes them."""
        return self.streams if len(self.streams) > 1 else next(iter(self.streams.values()))

    def val_dataloader(self) -> EvaluationLoader | list:
        return self.loaders.get("val", [])

    def test_dataloader(self) -> EvaluationLoader:
        """In a fit too, where it is read only if it is asked for."""
        loader = self.loaders.get("test") or self._evaluation_loader("test")
        if loader is None:
            raise ValueError(f"{type(self).__name__}: no data to test on; give `test`")
        return loader

    def teardown(self, stage: str) -> None:
        for stream in self.streams.values():
            stream.close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("fit")

    def state_dict(self) -> dict[str, Any]:
        streams = {name: stream.state_dict() for name, stream in self.streams.items()}
        return {"streams": streams, "seen": self.seen, "unreadable": self.unreadable}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, stream in self.streams.items():
            if name in state_dict["streams"]:
                stream.load_state_dict(state_dict["streams"][name])
        self.seen, self.unreadable = state_dict["seen"], state_dict["unreadable"]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Counts the bad samples of a batch.

        Raises:
            UnreadableSample: They exceed `max_unreadable`.
        """
        inner = batch.batch if isinstance(batch, Phased) else batch
        if isinstance(inner, Batch):
            self._count(inner)
        return batch

    def _count(self, batch: Batch) -> None:
        self.seen += len(batch) + len(batch.unreadable)
        self.unreadable += len(batch.unreadable)
        if not batch.unreadable:
            return
        for line in batch.unreadable:
            warnings.warn(f"skipped a sample that cannot be read: {line}")
        if self.trainer:
            for logger in self.trainer.loggers:
                logger.log_metrics({"data/unreadable": self.unreadable}, step=self.trainer.global_step)
        if self.unreadable > self.max_unreadable * max(self.seen, FEWEST_SAMPLES):
            raise UnreadableSample(
                f"{self.unreadable} of {self.seen} samples cannot be read, more than max_unreadable = "
                f"{self.max_unreadable:g} allows; the last: {batch.unreadable[-1]}; see `lightning-sal check-data`"
            )
