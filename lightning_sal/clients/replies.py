"""What comes of a request: a reply, or the failure to get one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

FATAL = frozenset({401, 402, 404, 405})  # no key, no money, no such model or place: the next request fares no better
PASSING = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered.

    Args:
        text: All that it wrote.
        input_tokens: Tokens that were read, or None where it is not said.
        output_tokens: Tokens that were written, thoughts included, or None.
        refusal: Why it would not answer, or None.
        truncated: Whether it reached the limit of tokens.
        confidence: Mean probability of its tokens, in [0, 1]; None where it is not said.
    """

    text: str
    input_tokens: int | None
    output_tokens: int | None
    refusal: str | None = None
    truncated: bool = False
    confidence: float | None = None


def mean_probability(logps: Iterable[object]) -> float | None:
    """The mean probability of tokens by their log-probabilities in nats; None where one is no number, or there is none."""
    known = list(logps)
    if not known or not all(isinstance(each, int | float) and not math.isnan(each) for each in known):
        return None
    return sum(math.exp(min(0.0, float(each))) for each in known) / len(known)  # type: ignore[arg-type]


class Failure(Exception):
    """A request without an answer; the message is one line without keys.

    Args:
        reason: What happened.
        status: The HTTP status, or None where there is none.
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after

    def because(self, cause: str) -> Failure:
        """The same with what it may be due to."""
        return Failure(f"{self}; {cause}", self.status, self.retry_after)

    @property
    def fatal(self) -> bool:
        """Whether every request would fail like this."""
        return self.status in FATAL

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status >= 500 or self.status in PASSING

    @property
    def free(self) -> bool:
        """Whether the server turned the request away before any work."""
        return self.status is not None and self.status < 500
