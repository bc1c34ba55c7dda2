"""The embedded default by name: where its weights lie."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED_POLICIES = {
    "tiny": WEIGHTS / "policy",
    "tiny-early": WEIGHTS / "policy_early",
    "tiny-varied": WEIGHTS / "policy_varied",
    "tiny-vqa": WEIGHTS / "policy_vqa",
    "tiny-perception": WEIGHTS / "policy_perception",
}
