"""Other people's models by API, or on this machine: requests, replies, budget and retries."""

from typing import NamedTuple

LOCAL = "local:"  # before the folder or hub name of a model that is to be loaded here


class API(NamedTuple):
    """Where a model is asked that names no address.

    Args:
        name: For people to read.
        variable: Of the environment, by which its library takes another address.
    """

    name: str
    variable: str


APIS = {
    "openai": API("OpenAI's API", "OPENAI_BASE_URL"),
    "gemini": API("Gemini's API", "GOOGLE_GEMINI_BASE_URL"),
}
"""What stands before the name of a model behind an endpoint, and a colon -> its API."""


def is_endpoint(model: str) -> bool:
    """Whether a model of a command is asked behind an endpoint, instead of loaded here: `openai:NAME`, `gemini:NAME`."""
    prefix, _, name = model.partition(":")
    return prefix in APIS and bool(name)


def default_limit(model: str) -> int:
    """Tokens of a response at most where nobody says: behind an endpoint the thoughts of a model count too."""
    return 2048 if is_endpoint(model) else 512
