"""Small datasets of numbered photographs: their corner is grey of the level `number * LEVELS`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.annotation.server import LEVELS

HEIGHT, WIDTH = 60, 80


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photograph(number: int) -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH, 3), number * LEVELS, np.uint8)
    pixels[20:40, 30:50] = (250, 200, 30)
    return pixels


def write_sod(root: Path, count: int) -> Path:
    """Photographs 0 to count - 1, each with a yellow square that is salient."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:40, 30:50] = 255
    for number in range(count):
        save(root / f"images/{number}.png", photograph(number))
        save(root / f"masks/{number}.png", mask)
    return root


def write_sis(root: Path, instances: list[int]) -> Path:
    """Photographs with so many instances each, as stripes of one colour each."""
    for number, count in enumerate(instances):
        colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for i in range(count):
            colours[10:50, 10 + 8 * i : 14 + 8 * i] = (40 + 20 * i, 200 - 20 * i, 90)
        save(root / f"image/{number}.png", photograph(number))
        save(root / f"gt/{number}.png", colours)
    return root


def write_cosod(root: Path, groups: dict[str, list[int]], empty: tuple[int, ...] = ()) -> Path:
    """Groups of photographs; those that are `empty` do not show what is common."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:40, 30:50] = 255
    for name, numbers in groups.items():
        for number in numbers:
            save(root / f"img/{name}/{number:03}.png", photograph(number))
            save(root / f"gt/{name}/{number:03}.png", mask * (number not in empty))
    return root
