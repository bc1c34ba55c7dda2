"""What models make of the same photographs: their answers side by side, and all of them as files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer_folder import AnswerFolder
from lightning_sal.samples import ImageGroup

if TYPE_CHECKING:
    from lightning_sal.inference.base import BasePredictor


def stream(
    predictors: Mapping[str, BasePredictor], group: ImageGroup, *, explained: bool = False
) -> Iterator[tuple[dict[str, str], dict[str, Prediction] | None]]:
    """Let every model answer the same group, in turns.

    Args:
        predictors: Name of a model -> the model.
        group: The group.
        explained: Whether the predictions say where each word came from, of those that can.

    Yields:
        Name of a model -> its words so far, and None; last of all the predictions in place of None.
    """
    streams = {
        name: predictor.stream(group, explained=explained and predictor.unexplained is None)
        for name, predictor in predictors.items()
    }
    texts, predictions = dict.fromkeys(predictors, ""), {}
    while len(predictions) < len(streams):
        for name in [name for name in streams if name not in predictions]:
            try:
                texts[name] = next(streams[name])
            except StopIteration as end:
                predictions[name] = end.value
        yield dict(texts), None
    yield texts, {name: predictions[name] for name in predictors}


class Archive:
    """The answers of a run as `lightning-sal segment` writes them, a folder a model; written as they come.

    Args:
        place: An empty folder to work in.
        models: Names of the models.
    """

    def __init__(self, place: Path, models: Sequence[str]) -> None:
        self._whole = place / "what-stands-out"
        names = [f"{number}-{re.sub(r'[^A-Za-z0-9.-]+', '_', model)}" for number, model in enumerate(models, 1)]
        self._folders = {
            model: AnswerFolder(self._whole / name if len(models) > 1 else self._whole, {"model": model})
            for model, name in zip(models, names, strict=True)
        }

    def add(self, predictions: Mapping[str, Prediction]) -> None:
        """Write what each model answered to one group."""
        for model, prediction in predictions.items():
            self._folders[model].add(prediction)

    def close(self) -> str:
        """Pack all into a zip beside it; returns the path."""
        for folder in self._folders.values():
            folder.finish([])
        return shutil.make_archive(str(self._whole), "zip", self._whole)
