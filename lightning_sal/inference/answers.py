"""Which tokens of a response are those of its answer.

Legend: B responses of T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_sal.inference.maps import text_spans
from lightning_sal.inference.responses import Response
from lightning_sal.transfer import moved

if TYPE_CHECKING:
    from lightning_sal.policy.policy import Policy


def answer_mask(policy: Policy, responses: Sequence[Response], mask: Tensor) -> Tensor:
    """The tokens of answers, read off the tokens that were sampled; the device is not waited for.

    Args:
        policy: That wrote the responses.
        responses: B responses, with tokens.
        mask: (B, T) bool, True on response tokens.

    Returns:
        (B, T) bool, True on the tokens that hold what is answered, without the tags around it; on all tokens of a response
        in which no answer can be read.

    Raises:
        ValueError: If a text is not that of its tokens, or it is not known what each token says.
    """
    spans = torch.tensor([_answer_span(policy, response) for response in responses])
    first, last = moved(spans, mask.device).T[:, :, None]
    places = torch.arange(mask.shape[1], device=mask.device)
    return mask & (places >= first) & (places <= last)


def _answer_span(policy: Policy, response: Response) -> tuple[int, int]:
    """The first token of the answer and the last; of the whole response where there is none."""
    assert response.tokens is not None
    tokens, place = response.tokens.tolist(), response.answer.answer_at
    return text_spans(policy, tokens, response.text, [place])[0] if place else (0, len(tokens) - 1)
