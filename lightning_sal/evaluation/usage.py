"""What the responses of an evaluation took, over all samples and processes, and of a sample on average."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from lightning_sal.samples import Usage

# `samples`, and what `Usage` names -> the sum over these samples; None where it is not known of each of them
Total = dict[str, float | None]

NOTHING: Total = {"samples": 0, **dict.fromkeys(asdict(Usage()), 0)}
_WORDS = {
    "seconds": "{:.3g} s",
    "input_tokens": "{:,.0f} input tokens",
    "output_tokens": "{:,.0f} output tokens",
    "cost": "${:.4g}",
}


def total(usage: Usage | None) -> Total:
    """What one sample took."""
    return {"samples": 1, **asdict(usage or Usage())}


def summed(totals: Iterable[Mapping[str, float | None]]) -> Total:
    """What all of them took; unknown is what is unknown of one."""
    whole = dict(NOTHING)
    for each in totals:
        whole = {
            name: None if before is None or (more := each[name]) is None else before + more
            for name, before in whole.items()
        }
    return whole


def known(whole: Mapping[str, float | None]) -> dict[str, float]:
    """A total without what is not known of it; empty where that leaves the number of samples alone."""
    found = {name: value for name, value in whole.items() if value is not None}
    return found if len(found) > 1 and found["samples"] else {}


def in_words(usage: Mapping[str, float]) -> str:
    """What a sample took on average, for people to read; empty where nothing is known."""
    return ", ".join(words.format(usage[name] / usage["samples"]) for name, words in _WORDS.items() if name in usage)
