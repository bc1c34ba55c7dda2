"""What it takes to ask a model behind an endpoint, before it is asked: tokens, dollars and time, typical and at most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from lightning_sal.clients.budget import TYPICAL_ANSWER, Estimate, Prices

if TYPE_CHECKING:
    from lightning_sal.clients.endpoint_config import EndpointConfig

SPEED = 50  # tokens of an answer that a server writes in a second, as a rule

Conversation = tuple[Sequence[str], int]
"""The texts of a request, the system turn among them, and how many images it shows."""


@dataclass(frozen=True, slots=True)
class Range:
    """How much it is expected to be, and how much it can be at most."""

    typical: float
    most: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What some requests take, one answer each.

    Args:
        requests: How many there are.
        images: That they show.
        input: Tokens that are read.
        output: Tokens that are written, thoughts included.
        cost: Dollars; None where prices are not known.
    """

    requests: int
    images: int
    input: Range
    output: Range
    cost: Range | None

    def rows(self) -> list[tuple[str, str, str]]:
        """What it is, about, and at most, for a table."""
        counts = {"input tokens": self.input, "output tokens": self.output}
        rows = [(name, f"{each.typical:,}", f"{each.most:,}") for name, each in counts.items()]
        return rows + ([("cost", f"${self.cost.typical:,.2f}", f"${self.cost.most:,.2f}")] if self.cost else [])


def forecast(asked: Iterable[Conversation], estimate: Estimate, prices: Prices | None = None) -> Forecast:
    """What requests take whose answers nobody has yet.

    Args:
        asked: The requests.
        estimate: Tokens of each.
        prices: Of tokens.
    """
    asked = list(asked)
    read = Range(*(sum(count(*each) for each in asked) for count in (estimate.typical_input, estimate.most_input)))
    written = Range(*(len(asked) * each for each in (min(TYPICAL_ANSWER, estimate.output), estimate.output)))
    cost = prices and Range(prices.cost(read.typical, written.typical), prices.cost(read.most, written.most))
    return Forecast(len(asked), sum(images for _, images in asked), read, written, cost)


def minutes(planned: Forecast, config: EndpointConfig) -> Range:
    """How long requests take, each answer written at `SPEED`, so many at once and so many a minute as the config says."""
    paced = planned.requests / config.per_minute if config.per_minute else 0.0
    at_once = SPEED * 60 * min(config.concurrency, max(1, planned.requests))
    return Range(*(ceil(max(paced, tokens / at_once)) for tokens in (planned.output.typical, planned.output.most)))


def table(planned: Forecast, config: EndpointConfig) -> Any:
    """What requests take, as a table of rich."""
    from rich.table import Table

    unpriced = "" if config.prices else "; policy.input_price and policy.output_price give the cost"
    grid = Table(caption=f"time: {config.concurrency} at once, each written at {SPEED} tokens a second{unpriced}")
    for head in ("", "about", "at most"):
        grid.add_column(head, justify="right" if grid.columns else "left")
    time = minutes(planned, config)
    for row in [*planned.rows(), ("time", f"{time.typical:,} min", f"{time.most:,} min")]:
        grid.add_row(*row)
    return grid
