"""Responses of a model behind an endpoint, read as those of a policy are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_sal.clients.endpoint import AskedModel
from lightning_sal.inference.responses import Reading, Response, responses_of
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import task_of

REFUSED = "refused: "  # before the reason why there is no answer, in place of what would be malformed in one


def ask(groups: Sequence[ImageGroup], model: AskedModel, reading: Reading = "lenient") -> list[Response]:
    """The responses to B groups, without masks, from the conversations that a policy is asked by.

    A refusal is an empty response, whose answer says why there is none.

    Args:
        groups: B image groups.
        model: Which answers.
        reading: How answers are read.

    Raises:
        UsageError: See `AskedModel.ask`.
    """
    look = model.config.look
    answered = model.ask(groups, [task_of(group, look).messages(group) for group in groups])
    responses = responses_of(
        groups,
        [each.text for each in answered],
        truncated=[each.truncated for each in answered],
        confidence=[each.confidence for each in answered],
        usage=[each.usage for each in answered],
        frame=model.config.units,
        look=look,
        reading=reading,
    )
    return [
        replace(response, answer=replace(response.answer, reason=f"{REFUSED}{each.refusal}"))
        if each.refusal
        else response
        for response, each in zip(responses, answered, strict=True)
    ]
