"""What a model is asked, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_sal.samples import Message


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation that waits for its next answer.

    Args:
        images: JPEG files, shown before the first turn's text.
        turns: What the user and the model said by turns, beginning and ending with the user.
    """

    images: tuple[bytes, ...]
    turns: tuple[str, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns, each with its speaker, and the images with the first."""
        first, *rest = self.turns
        later = (Message("user" if number % 2 else "assistant", text) for number, text in enumerate(rest))
        return (Message("user", first, len(self.images)), *later)

    def corrected(self, answer: str, correction: str) -> Request:
        """The conversation after an answer that cannot be used."""
        turns = (*self.turns, answer.strip() or "(nothing)", correction)  # no API takes an empty turn
        return replace(self, turns=turns)
