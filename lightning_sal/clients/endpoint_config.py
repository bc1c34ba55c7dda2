"""A model behind an endpoint and how it is asked, as plain values that YAML can name."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from lightning_sal.clients import APIS, LOCAL
from lightning_sal.clients.budget import Prices
from lightning_sal.frames import Frame, Shrunk, Square


@dataclass(frozen=True)
class EndpointConfig:
    """A model behind an endpoint. Keys are read from OPENAI_API_KEY, or GEMINI_API_KEY or GOOGLE_API_KEY, alone.

    Args:
        model: NAME or openai:NAME at OpenAI's API or any server that is compatible with it, such as vLLM's; gemini:NAME at
            Gemini's own API.
        base_url: Address of another server than that of the API, such as http://localhost:8000/v1.
        temperature: At which answers are sampled; null for the model's own.
        longest_side: Longest side in pixels of an image as it is sent, as JPEG; larger ones are scaled down.
        concurrency: Requests that are under way at once, >= 1.
        per_minute: Requests sent in a minute; null for no limit.
        timeout: Seconds until a request counts as failed, > 0.
        retries: Times that a request is sent again after a failure that may pass, >= 0.
        backoff: Seconds that the first wait before that is at most; the next ones are twice as long each.
        give_up_after: Requests in a row that the server turns away, each on its own account, after which the run stops.
        budget: Dollars that the answers of a run may cost, those that are kept already included; null for no limit.
        input_price: Dollars a million tokens that are read; null where it is not known.
        output_price: Dollars a million tokens that are written, thoughts included.
        cache: Folder that keeps the answers from run to run; null for the memory of this process alone.
        frame: Side of the square in which the model states places, whatever the image: 1000 for Gemini, Qwen3-VL; null for
            pixels of the image as it is sent.
        look: Tag of blocks that the reasoning must hold, as in `PolicyConfig`; null asks for what the task asks for.
    """

    model: str
    base_url: str | None = None
    temperature: float | None = 0.0
    longest_side: int = 1024
    concurrency: int = 8
    per_minute: float | None = None
    timeout: float = 120.0
    retries: int = 5
    backoff: float = 1.0
    give_up_after: int = 10
    budget: float | None = None
    input_price: float | None = None
    output_price: float | None = None
    cache: str | None = "runs/endpoints"
    frame: int | None = None
    look: str | None = None

    def __post_init__(self) -> None:
        if not self.model or self.model.startswith(LOCAL):
            raise ValueError(f"policy.model {self.model!r} is no model behind an endpoint: give NAME or gemini:NAME")
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError(
                "give both policy.input_price and policy.output_price, dollars a million tokens, or neither"
            )
        if self.budget is not None and self.input_price is None:
            raise ValueError("policy.budget needs policy.input_price and policy.output_price, dollars a million tokens")
        positive = {
            "longest_side": self.longest_side, "concurrency": self.concurrency, "timeout": self.timeout,
            "give_up_after": self.give_up_after, "per_minute": self.per_minute, "frame": self.frame,
        }  # fmt: skip
        least = {"temperature": self.temperature, "retries": self.retries, "backoff": self.backoff}
        least |= {"budget": self.budget, "input_price": self.input_price, "output_price": self.output_price}
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise ValueError(f"policy.{name} {value} must be above 0")
        for name, value in least.items():
            if value is not None and not value >= 0:
                raise ValueError(f"policy.{name} {value} must be 0 or above")
        if self.base_url is not None:
            parts = urlsplit(self.base_url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"policy.base_url {self.base_url!r} is no address: give http://HOST:PORT/v1")
            if parts.username or parts.password:
                raise ValueError("policy.base_url holds a name or a password: keys come from the environment alone")

    @property
    def name(self) -> str:
        """The model's own name."""
        prefix, colon, name = self.model.partition(":")
        return name if colon and prefix in APIS else self.model

    @property
    def address(self) -> str:
        """Where it is asked, for people to read."""
        api = APIS["gemini" if self.model.startswith("gemini:") else "openai"]
        return self.base_url or os.environ.get(api.variable) or api.name

    @property
    def prices(self) -> Prices | None:
        """What tokens cost, where it is known."""
        if self.input_price is None or self.output_price is None:
            return None
        return Prices(self.input_price, self.output_price)

    @property
    def units(self) -> Frame:
        """In which the model states places."""
        return Shrunk(self.longest_side) if self.frame is None else Square(self.frame)

    def share(self, ranks: int) -> EndpointConfig:
        """That of one of so many processes which ask at once: equal parts of the budget, the rate and the concurrency."""
        return replace(
            self,
            budget=None if self.budget is None else self.budget / ranks,
            per_minute=None if self.per_minute is None else self.per_minute / ranks,
            concurrency=max(1, self.concurrency // ranks),
        )
