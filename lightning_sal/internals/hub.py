"""Whether the hub can be asked for a model: told at once, where its library tries again for most of a minute."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path

from lightning_sal.internals.reaching import fault_of

_SUFFIXES = (".ckpt", ".pt", ".py", ".safetensors")


def is_hub_name(name: str) -> bool:
    """Whether a name has the form owner/name, and is no path of this machine."""
    path = Path(name)
    if path.is_dir() or path.suffix in _SUFFIXES:
        return False
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not path.parent.is_dir()


def weights(name: str) -> str:
    """The value of an option that names weights, refused where only the hub could have them and cannot be reached."""
    if is_hub_name(name):
        require_hub(name)
    return name


def require_hub(name: str) -> None:
    """Check that a model of the hub can be had; where the hub cannot be reached, what was downloaded before is taken.

    Raises:
        OSError: It cannot; the line says how to do without the hub.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    if constants.is_offline_mode():
        if not cached:
            raise OSError(
                f"{name} was not downloaded to {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids it; {_ELSE}"
            )
    elif why := _unreachable(constants.ENDPOINT):
        if not cached:
            raise OSError(f"{name}: the hub, {constants.ENDPOINT}, cannot be reached ({why}); {_ELSE}")
        warnings.warn(f"the hub cannot be reached ({why}): {name} is taken as it was downloaded before")
        constants.HF_HUB_OFFLINE = True  # or each file would be asked for six times


_ELSE = "name a local folder, or a mirror by HF_ENDPOINT; HF_HUB_OFFLINE=1 takes what was downloaded before"
_unreachable = cache(fault_of)
