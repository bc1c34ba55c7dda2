"""Which tokens of a response hold a part of its text, found by walking the tokens that were sampled.

Text that is tokenised again may fall into other tokens than those that were sampled, so spans are never read off that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any


def token_spans(pieces: Sequence[bytes], places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The tokens that hold parts of a text.

    Args:
        pieces: The bytes of each token; empty for one that leaves none. Together they are the text in UTF-8, in which each
            fault is one U+FFFD.
        places: For each part its first character and the one behind its last, within the text and not empty.

    Returns:
        For each part the token of its first byte and that of its last: a character of several tokens is whole in it.

    Raises:
        ValueError: If a place lies outside the text or is empty.
    """
    ends = list(accumulate(map(len, pieces)))
    borders = _Borders(b"".join(pieces))
    spans = []
    for start, end in places:
        if not 0 <= start < end <= borders.characters:
            raise ValueError(f"characters {start} to {end} are no part of a text of {borders.characters}")
        first, last = borders.byte(start), borders.byte(end) - 1
        spans.append((bisect_right(ends, first), bisect_right(ends, last)))
    return spans


class _Borders:
    """Where the characters of UTF-8 begin."""

    def __init__(self, encoded: bytes) -> None:
        self.text = encoded.decode(errors="replace")
        self.characters = len(self.text)
        self.starts: list[int] | None = None
        if "\N{REPLACEMENT CHARACTER}" in self.text:  # of a fault it is not known how many bytes it stands for
            self.starts = _starts(encoded)

    def byte(self, character: int) -> int:
        """The byte at which a character begins."""
        return len(self.text[:character].encode()) if self.starts is None else self.starts[character]


def _starts(encoded: bytes) -> list[int]:
    """The byte at which each character begins, and the end; a fault of UTF-8 is a character."""
    starts, at = [], 0
    while at < len(encoded):
        starts.append(at)
        # The longest piece that is one character: a whole one, or the part that UTF-8 could still have continued.
        piece = next(n for n in range(min(4, len(encoded) - at), 0, -1) if len(_decoded(encoded[at : at + n])) == 1)
        at += piece
    return [*starts, len(encoded)]


def _decoded(piece: bytes) -> str:
    return piece.decode(errors="replace")


def token_bytes(tokenizer: Any, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token of a byte-level BPE, those of added tokens included.

    Args:
        tokenizer: Of transformers.
        ids: Of the tokens.

    Raises:
        ValueError: If the tokenizer is of another kind.
    """
    added, table, found = tokenizer.added_tokens_decoder, _byte_of(), []
    for token, piece in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if token in added:
            found.append(str(added[token]).encode())
            continue
        try:
            found.append(bytes(table[character] for character in piece))
        except KeyError:
            raise ValueError(
                f"token {token} {piece!r} is not of a byte-level BPE, so its place in the text is unknown"
            ) from None
    return found


@cache
def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level BPE stands for: printable ones for themselves, others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
