"""What all predictors share, wherever their responses come from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace

from lightning_sal.datasets.photographs import read_group
from lightning_sal.inference.responses import Prediction
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.base import Segmenter, require_fit
from lightning_sal.tasks import get_task, load_task


class BasePredictor(ABC):
    """Answers image groups by a model, and turns what it answers into masks by a segmenter."""

    __slots__ = ()

    segmenter: Segmenter

    @property
    def unexplained(self) -> str | None:
        """Why predictions cannot say where each word came from, in one line; None where they can."""
        return None

    @property
    def notice(self) -> str | None:
        """What to know before photographs are given to it, in one line; None for nothing."""
        return None

    @property
    def took(self) -> str | None:
        """What its answers took so far, in one line; None where nobody else was asked."""
        return None

    def __call__(
        self,
        images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        task: str = "sod",
        question: str = "",
        *,
        explained: bool = False,
    ) -> Prediction:
        """The prediction for one photograph, or for several together as a CoSOD group.

        Args:
            images: File, or the files of a group.
            task: sod, sis, cosod, or your own as FILE.py:NAME.
            question: What is asked of them beside the task's instruction; empty for nothing.
            explained: See `predict`.

        Raises:
            UnreadableSample: If a file is no image that can be read.
            ValueError: If the task is unknown, or asks for another number of images.
        """
        files = [images] if isinstance(images, (str, os.PathLike)) else images
        group = read_group([os.fspath(file) for file in files], load_task(task).name)
        return self.predict([replace(group, question=question)], explained=explained)[0]

    def require_fit(self, tasks: Iterable[str]) -> None:
        """Check that the segmenter takes the prompts of some tasks.

        Raises:
            ValueError: It does not.
        """
        for task in tasks:
            require_fit(self.segmenter, get_task(task).prompt_type, task)

    def require_explained(self, explained: bool) -> None:
        """Check that predictions can say where each word came from, if they are to.

        Raises:
            ValueError: They cannot; the line says why.
        """
        if explained and self.unexplained is not None:
            raise ValueError(self.unexplained)

    @abstractmethod
    def predict(self, groups: Sequence[ImageGroup], *, explained: bool = False) -> list[Prediction]:
        """One prediction a group.

        Args:
            groups: B image groups.
            explained: Whether the predictions say where each word came from, by their `maps` and `explanation`.

        Raises:
            ValueError: If a group cannot be answered.
        """

    def predict_each(self, groups: Sequence[ImageGroup], *, explained: bool = False) -> list[Prediction | ValueError]:
        """One prediction a group, or why there is none: a group that cannot be answered leaves the others be.

        Args:
            groups: B image groups.
            explained: See `predict`.
        """
        try:
            return [*self.predict(groups, explained=explained)] if groups else []
        except ValueError as error:
            if len(groups) == 1:
                return [error]
            return [each for group in groups for each in self.predict_each([group], explained=explained)]

    @abstractmethod
    def stream(self, group: ImageGroup, *, explained: bool = False) -> Generator[str, None, Prediction]:
        """The response to one group as it grows, then its prediction, which is that of `predict`.

        Args:
            group: The image group.
            explained: See `predict`.

        Yields:
            The text so far.

        Returns:
            The prediction: the value of `yield from`, or of the StopIteration that ends `next`.
        """
