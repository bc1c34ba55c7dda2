"""What models make of the same photographs: their answers side by side, and all of them as files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lightning_sal.answer_folder import AnswerFolder
from lightning_sal.samples import ImageGroup, Prediction

if TYPE_CHECKING:
    from lightning_sal.predictor import Predictor

ARCHIVE = "what-stands-out"


def stream(
    predictors: Mapping[str, Predictor], group: ImageGroup
) -> Iterator[tuple[dict[str, str], dict[str, Prediction] | None]]:
    """Let every model answer the same group, in turns.

    Yields:
        Name of a model -> its words so far, and None; last of all the predictions in place of None.
    """
    streams = {name: predictor.stream(group) for name, predictor in predictors.items()}
    texts, predictions = dict.fromkeys(predictors, ""), {}
    while len(predictions) < len(streams):
        for name in [name for name in streams if name not in predictions]:
            try:
                texts[name] = next(streams[name])
            except StopIteration as end:
                predictions[name] = end.value
        yield dict(texts), None
    yield texts, {name: predictions[name] for name in predictors}


@contextmanager
def archive(predictions: Sequence[Mapping[str, Prediction]]) -> Iterator[str]:
    """A zip of the folders that `lightning-sal segment` writes, one a model; it is there as long as the context is.

    Args:
        predictions: For each group, name of a model -> its prediction; at least one.
    """
    models = list(predictions[0])
    with TemporaryDirectory() as place:
        whole = Path(place, ARCHIVE)
        for number, model in enumerate(models, 1):
            part = whole / f"{number}-{re.sub(r'[^A-Za-z0-9.-]+', '_', model)}" if len(models) > 1 else whole
            folder = AnswerFolder(part, {"model": model})
            for found in predictions:
                folder.add(found[model])
            folder.finish([])
        yield shutil.make_archive(str(whole), "zip", whole)
