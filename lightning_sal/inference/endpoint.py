"""From photographs to masks by a model behind an endpoint: no weights of it are here."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from lightning_sal.clients.endpoint import AskedModel, closing
from lightning_sal.inference.asked import REFUSED, ask
from lightning_sal.inference.base import BasePredictor
from lightning_sal.inference.responses import Prediction, Reading, find_masks, prediction_of
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.base import Segmenter

UNEXPLAINED = "{model} cannot say where each word came from: that needs its weights"


@dataclass(frozen=True, slots=True)
class EndpointPredictor(BasePredictor):
    """Answers image groups by a model behind an endpoint, and turns its expressions into masks.

    The images leave this machine. An answer is kept by its content (see `lightning_sal.clients.endpoint`), so nothing is
    paid for twice.

    Args:
        asked: The model, with its limits.
        segmenter: Finds the mask of each expression.
        reading: How answers are read: `lenient` takes what is not quite in the form that is asked for, where it can mean
            one thing.
    """

    asked: AskedModel
    segmenter: Segmenter
    reading: Reading = "lenient"

    @property
    def unexplained(self) -> str:
        """See `BasePredictor`."""
        return UNEXPLAINED.format(model=self.asked.config.model)

    @property
    def notice(self) -> str:
        """See `BasePredictor`."""
        config = self.asked.config
        return f"What you upload leaves this machine: it is sent to {config.address}, for {config.name} to answer"

    @property
    def took(self) -> str:
        """See `BasePredictor`."""
        return closing(self.asked.config, self.asked.ledger)

    def predict(self, groups: Sequence[ImageGroup], *, explained: bool = False) -> list[Prediction]:
        """One prediction a group; all that may be are asked for at once.

        Args:
            groups: B image groups.
            explained: Not for a model behind an endpoint.

        Raises:
            UsageError: If the model cannot be asked any further; the line says why, and how to go on.
            ValueError: If it refuses one, or cannot explain; answers to the others are kept.
        """
        self.require_explained(explained)
        responses = ask(groups, self.asked, self.reading)
        for response in responses:
            reason = response.answer.reason or ""
            if reason.startswith(REFUSED):
                raise ValueError(f"{', '.join(response.group.paths) or response.group.key}: {reason}")
        return [prediction_of(response) for response in find_masks(responses, self.segmenter)]

    def stream(self, group: ImageGroup, *, explained: bool = False) -> Generator[str, None, Prediction]:
        """The response to one group, once it is whole, then its prediction; see `BasePredictor`."""
        (prediction,) = self.predict([group], explained=explained)
        yield prediction.text
        return prediction
