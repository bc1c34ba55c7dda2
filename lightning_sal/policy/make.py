"""Which path a policy takes."""

from __future__ import annotations

import os
import sys
from functools import cache

from lightning_sal.policy.backbone import MODEL_TYPES
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.general.policy import NO_ATTRIBUTION, GeneralPolicy
from lightning_sal.policy.loading import EMBEDDED, model_type
from lightning_sal.policy.policy import Policy


def make_policy(config: PolicyConfig) -> Policy:
    """The policy of some settings, on the path that they name; which one it is, is printed once a process.

    Raises:
        OSError: If there is no such model.
        ValueError: If it cannot be loaded, or the path can't read it.
    """
    found = policy_class(config)
    if config.model not in EMBEDDED and os.environ.get("LOCAL_RANK", "0") == "0":
        _say(config.model, model_type(config), found.path)
    return found(config)


def policy_class(config: PolicyConfig) -> type[FastPolicy] | type[GeneralPolicy]:
    """The class of the path that a policy takes; no weight is read.

    Raises:
        OSError: If there is no such model.
        ValueError: If the fast path is named and does not know the family.
    """
    kind = model_type(config)
    if config.path == "fast" and kind not in MODEL_TYPES:
        raise ValueError(
            f"policy model '{config.model}' is a {kind}, and policy.path fast knows {', '.join(MODEL_TYPES)}: take auto"
        )
    fast = config.path != "general" and kind in MODEL_TYPES
    return FastPolicy if fast else GeneralPolicy


def require_attribution(config: PolicyConfig) -> None:
    """Check that the policy can be asked where its words came from; no weight is read.

    Raises:
        ValueError: It takes the general path; the line names the model.
    """
    if policy_class(config) is GeneralPolicy:
        raise ValueError(NO_ATTRIBUTION.format(model=config.model, kind=model_type(config)))


@cache
def _say(model: str, kind: str, path: str) -> None:
    print(f"policy {model} ({kind}): {path} path", file=sys.stderr, flush=True)
