"""What the page takes at most."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the page takes at most.

    Args:
        megabytes: Size of a file, in 2^20 bytes.
        images: Photographs of a run.
        megapixels: Size of a photograph, in 10^6 pixels.
        waiting: Runs that wait for their turn.

    Raises:
        ValueError: One of them is less than 1.
    """

    megabytes: int = 20
    images: int = 12
    megapixels: int = 25
    waiting: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"--max-{name} is {value}: give 1 or more")
