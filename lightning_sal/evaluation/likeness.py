"""Which results can be compared: those that were measured on the same images and by the same convention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_sal.evaluation.measured import Measured, Place
from lightning_sal.evaluation.results import Results
from lightning_sal.evaluation.tables import settings_text

# How a benchmark was measured, and what the row says itself: all other settings say how responses came about
NOT_OF_RESPONSES = ("convention", "images", "samples", "missing", "extra", "resized", "reading", "model", "address")


def find_unlike(results: Sequence[Results], measured: Mapping[Place, Measured]) -> dict[Place, list[str]]:
    """The values that cannot be compared with those of the most rows -> why.

    Args:
        results: One a method.
        measured: What their images hold.
    """
    reasons: dict[Place, list[str]] = {}
    for benchmark in dict.fromkeys(name for r in results for name in r.metrics):
        having = [r for r in results if benchmark in r.metrics]
        images = {r.name: measured[r.name, benchmark] for r in having}
        conventions = {r.name: r.settings.get(benchmark, {}).get("convention") for r in having}
        for name, why in [*_other_images(images), *_other_conventions(conventions)]:
            reasons.setdefault((name, benchmark), []).append(f"{benchmark}: {why}; not compared.")
    return reasons


def _other_images(measured: Mapping[str, Measured]) -> Iterator[tuple[str, str]]:
    """Each method that was not measured on the images that the most were, and how its own differ."""
    usual = measured[_most({name: each.which for name, each in measured.items()})]
    for name, each in measured.items():
        if each.which == usual.which:
            continue
        if each.images == usual.images:
            yield name, f"measured on as many images, {each.images}, but of other names"
        else:
            yield name, f"measured on {each.images} images, where the other rows have {usual.images}"


def _other_conventions(conventions: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each method that was not measured by the convention that the most state, and by what its own differs."""
    stated = {
        method: {key: value for key, value in fields.items() if key != "name"}
        for method, fields in conventions.items()
        if isinstance(fields, dict)
    }
    usual = stated[_most({name: repr(sorted(fields.items())) for name, fields in stated.items()})] if stated else {}
    for name, fields in stated.items():
        differing = [key for key in {**usual, **fields} if usual.get(key) != fields.get(key)]
        if differing:
            words = ", ".join(f"{key} {fields.get(key)} and not {usual.get(key)}" for key in differing)
            yield name, f"by another convention, {words}"


def _most(values: Mapping[str, Any]) -> str:
    """The first of those that have what the most have."""
    counts = Counter(values.values())
    return max(values, key=lambda name: counts[values[name]])  # the first of equal ones


def settings_apart(results: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """A note for each setting of responses in which rows differ, and the rows that have it otherwise than the most."""
    stated: dict[str, dict[str, str]] = {}
    for r in results:
        names = dict.fromkeys(name for own in r.settings.values() for name in own if name not in NOT_OF_RESPONSES)
        for name in names:
            values = dict.fromkeys(settings_text({name: own[name]}) for own in r.settings.values() if name in own)
            stated.setdefault(name, {})[r.name] = " and ".join(values)
    notes = []
    for values in stated.values():
        usual = values[_most(values)]
        if others := [name for name, value in values.items() if value != usual]:
            told = "; ".join(f"{name}: {values[name]}" for name in others)
            notes.append((f"Responses came about otherwise: {told}; the other rows: {usual}.", others))
    return notes
