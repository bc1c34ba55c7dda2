"""What a row of the table is, and the two sizes at which it can be measured."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Values = dict[str, float | str]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: Its own among all rows.
        measure: What a process of its own calls with the size and `options` as one namespace; gives name -> value.
        seconds: What it may take on one H200, the start of its process included.
        gigabytes: Of GPU memory that it needs.
        options: What it measures.
    """

    name: str
    measure: Callable[[Namespace], Values]
    seconds: float
    gigabytes: float
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Size:
    """At which size rows are measured.

    Args:
        model: "7b" or "tiny", of `workload.build`.
        device: "cuda" or "cpu".
        pixels: That the policy's processor resizes an image to.
        height: Of an image, in pixels, as it is given.
        width: Likewise.
        prompts: P, prompts of a step.
        micro_batch: Responses of a backward pass.
        tokens: Tokens of each response of a training step.
        decoded: Tokens of each response where decoding alone is measured.
        repeats: Times that count.
        warmup: Times before them.
        copied: Bytes that are copied to measure the bandwidth.
        square: Side of the matrices that are multiplied to measure arithmetic.
        maps: Images that metrics are given.
        side: Of such an image, in pixels.
    """

    model: str = "7b"
    device: str = "cuda"
    pixels: int = 784 * 1024
    height: int = 768
    width: int = 1024
    prompts: int = 8
    micro_batch: int = 8
    tokens: int = 256
    decoded: int = 65
    repeats: int = 2
    warmup: int = 1
    copied: int = 2**32
    square: int = 8192
    maps: int = 32
    side: int = 512

    def given(self, row: Row) -> dict[str, Any]:
        """All that a measurement hangs on."""
        return {**asdict(self), **row.options}


REAL = Size()
DRY = Size(
    model="tiny",
    device="cpu",
    pixels=112 * 84,
    height=84,
    width=112,
    prompts=2,
    micro_batch=2,
    tokens=3,
    decoded=3,
    repeats=1,
    copied=2**20,
    square=64,
    maps=2,
    side=64,
)
