"""Other people's models by API, or on this machine: requests, replies, budget and retries."""

LOCAL = "local:"  # before the folder or hub name of a model that is to be loaded here
APIS = {"openai": "OpenAI's API", "gemini": "Gemini's API"}
"""What stands before the name of a model behind an endpoint, and a colon -> where it is asked, for people to read."""


def is_endpoint(model: str) -> bool:
    """Whether a model of a command is asked behind an endpoint, instead of loaded here: `openai:NAME`, `gemini:NAME`."""
    prefix, _, name = model.partition(":")
    return prefix in APIS and bool(name)


def default_limit(model: str) -> int:
    """Tokens of a response at most where nobody says: behind an endpoint the thoughts of a model count too."""
    return 2048 if is_endpoint(model) else 512
