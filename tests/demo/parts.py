"""Uploads that a page must refuse, and a model whose words are set."""

import struct
import threading
import zlib

import torch

from lightning_sal.inference.responses import Prediction
from lightning_sal.tasks import Expressions, get_task


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header states a size and whose pixels end early."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


class Says:
    """A model that says these texts one after the other, then finds the left half of every image.

    Between the first and the second it waits for `go`. `asked` is the question of the last group, and whether it was to
    explain; it cannot for a reason that is `unexplained`. While it `fails` it raises what torch raises after the first text.
    """

    unexplained: str | None = None

    def __init__(self, *texts: str) -> None:
        self.texts, self.go, self.asked, self.fails = texts, threading.Event(), None, False
        self.go.set()

    def stream(self, group, *, explained=False):
        self.asked = (group.question, explained)
        for number, text in enumerate(self.texts):
            if number == 1:
                assert self.go.wait(60)
            yield text
            if self.fails:
                raise RuntimeError("out of <b>memory</b>")
        answer = Expressions(("left half",), reasoning=get_task(group.task).parse(self.texts[-1]).reasoning)
        masks = tuple(torch.zeros(1, *image.shape[:2], dtype=torch.bool) for image in group.images)
        for mask in masks:
            mask[:, :, : mask.shape[2] // 2] = True
        return Prediction(group, self.texts[-1], answer, masks, 0.5, masks)
