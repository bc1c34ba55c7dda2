"""Folders that are sent to the Hugging Face Hub, with the token of `hf auth login` or HF_TOKEN, which is never an option."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG_IN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write"


def open_repository(name: str, private: bool) -> str:
    """Make a model repository, or find it, so that what cannot be sent is known before there is work.

    Args:
        name: owner/name; owner may be left out and is then who has logged in.
        private: Whether only its owner sees it, where it is new.

    Returns:
        owner/name.

    Raises:
        ValueError: If the hub refuses; the line says why.
        OSError: If it cannot be reached.
    """
    from huggingface_hub import HfApi

    with _in_one_line(name):
        return HfApi().create_repo(name, private=private, exist_ok=True).repo_id


def push(folder: Path, name: str, message: str) -> str:
    """Send all files of a folder as one commit; what else the repository holds stays.

    Args:
        folder: Its files, with those of folders below it.
        name: owner/name of a repository that is there.
        message: First line of the commit.

    Returns:
        The address of the repository.

    Raises:
        ValueError: If the hub refuses; the line says why.
        OSError: If it cannot be reached.
    """
    from huggingface_hub import HfApi

    with _in_one_line(name):
        return HfApi().upload_folder(repo_id=name, folder_path=folder, commit_message=message).repo_url.url


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Inside, what the hub's library raises becomes one line that names the repository."""
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ValueError(f"{name}: the hub does not know who you are: {LOG_IN}") from error
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{name}: HF_HUB_OFFLINE is set, so nothing is sent: unset it") from error
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name of a repository: give owner/name") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = f": {LOG_IN}" if status in (401, 403) else f" {error.server_message or ''}".rstrip()
        raise ValueError(f"{name}: the hub answers {status}{hint}") from error
    except TransportError as error:
        raise OSError(f"{name}: the hub cannot be reached: {error}") from error
