"""From photographs to masks by a model behind an endpoint: no weights of it are here."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from lightning_sal.clients.endpoint import Answered, AskedModel, EndpointConfig
from lightning_sal.inference.base import BasePredictor
from lightning_sal.inference.responses import Prediction, Reading, Response, find_masks, prediction_of, responses_of
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.tasks import task_of


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
        return f"{self.asked.config.model} cannot say where each word came from: that needs its weights"

    @property
    def notice(self) -> str:
        """See `BasePredictor`."""
        config = self.asked.config
        return f"What you upload leaves this machine: it is sent to {config.address}, for {config.name} to answer"

    @property
    def took(self) -> str:
        """See `BasePredictor`."""
        ledger, config = self.asked.ledger, self.asked.config
        kept = f", {ledger.kept} of them kept from before" if ledger.kept else ""
        cost = f", ${ledger.cost:.4f}" if config.prices else ""
        tokens = f"{ledger.input_tokens:,} input and {ledger.output_tokens:,} output tokens"
        return f"{config.name}: {ledger.answers} answers{kept}; {ledger.requests} requests now; in all {tokens}{cost}"

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
        answers = ask_about(self.asked, groups)
        for group, answer in zip(groups, answers, strict=True):
            if answer.refusal is not None:
                name = group.paths[0] if group.paths else group.key
                raise ValueError(f"{name}: {self.asked.config.name} refused: {answer.refusal}")
        responses = read_answers(groups, answers, self.asked.config, self.reading)
        return [prediction_of(response) for response in find_masks(responses, self.segmenter)]

    def stream(self, group: ImageGroup, *, explained: bool = False) -> Generator[str, None, Prediction]:
        """The response to one group, once it is whole, then its prediction; see `BasePredictor`."""
        (prediction,) = self.predict([group], explained=explained)
        yield prediction.text
        return prediction


def ask_about(asked: AskedModel, groups: Sequence[ImageGroup]) -> list[Answered]:
    """What a model behind an endpoint answers to B groups, each asked as its task has it; see `AskedModel.ask`."""
    return asked.ask(groups, [task_of(group, asked.config.look).messages(group) for group in groups])


def read_answers(
    groups: Sequence[ImageGroup], answers: Sequence[Answered], config: EndpointConfig, reading: Reading
) -> list[Response]:
    """The answers of a model behind an endpoint as responses; the text of a refusal is empty.

    Args:
        groups: B image groups.
        answers: What was answered to them.
        config: How they were asked for.
        reading: How answers are read.
    """
    return responses_of(
        groups,
        [each.text for each in answers],
        truncated=[each.truncated for each in answers],
        confidence=[each.confidence for each in answers],
        usage=[each.usage for each in answers],
        frame=config.units,
        look=config.look,
        reading=reading,
    )
