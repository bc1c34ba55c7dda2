"""Questions that ask for what is in an image: every form in which they are found on disk."""

from __future__ import annotations

from pathlib import Path

from lightning_sal.datasets import reasonseg, ref_tables, refs, vision_reasoner
from lightning_sal.datasets.layouts import Candidate, Layout

FORMS = (vision_reasoner, reasonseg, refs, ref_tables)


def _match(place: Path) -> list[Candidate]:
    return [candidate for form in FORMS for candidate in form.match(place)]


LAYOUT = Layout(
    name="perception",
    looked_for="; or ".join(form.LOOKED_FOR for form in FORMS),
    match=_match,
)
