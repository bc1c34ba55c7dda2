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
        system: The system turn before them; empty for none.
    """

    images: tuple[bytes, ...]
    turns: tuple[str, ...]
    system: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns, each with its speaker, and the images with the user's first."""
        first, *rest = self.turns
        system = (Message("system", self.system),) if self.system else ()
        later = (Message("user" if number % 2 else "assistant", text) for number, text in enumerate(rest))
        return (*system, Message("user", first, len(self.images)), *later)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is said, the system turn included."""
        return tuple(message.text for message in self.messages)

    def corrected(self, answer: str, correction: str) -> Request:
        """The conversation after an answer that cannot be used."""
        turns = (*self.turns, answer.strip() or "(nothing)", correction)  # no API takes an empty turn
        return replace(self, turns=turns)
