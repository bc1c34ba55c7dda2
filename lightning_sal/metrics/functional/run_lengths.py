"""How far masks that are given as COCO's run lengths overlap, without their bitmaps.

Legend: B images, M predicted and I true masks of one image of H x W pixels; R runs of the N masks of all images, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sal import run_lengths
from lightning_sal.metrics.functional.mask_iou import over_union

RunLengths = Mapping[str, Any]  # as COCO json has a mask: `size` [H, W], and `counts`

_AT_A_TIME = 16  # images, whose runs stay in a core's cache


def run_length_iou(preds: Sequence[RunLengths], target: Sequence[RunLengths], crowd: Tensor | None = None) -> Tensor:
    """IoU of every predicted mask with every true one, in [0, 1], from run lengths; 0 for two empty masks.

    Args:
        preds: M >= 0 masks of an image, each `{"size": [H, W], "counts": ...}` with counts as COCO's string, its bytes, or a
            list of lengths: of background and object by turns, down the columns.
        target: I >= 0, likewise.
        crowd: (I,) bool, which of the true are crowds: there the overlap is taken over the area of the prediction, as in
            COCO evaluation; None where none is.

    Returns:
        (M, I) float64, on the CPU.

    Raises:
        ValueError: If sizes differ, or one is no such mask, which the message names.

    Example:
        >>> square, half = {"size": [2, 3], "counts": [0, 4, 2]}, {"size": [2, 3], "counts": [2, 2, 2]}
        >>> run_length_iou([square, half], [half])
        tensor([[0.5000],
                [1.0000]], dtype=torch.float64)
    """
    try:
        (iou,) = run_length_ious([preds], [target], [crowd])
    except ValueError:
        for name, masks in (("preds", preds), ("target", target)):
            for index, mask in enumerate(masks):
                try:
                    _Masks.read([mask])
                except ValueError as error:
                    raise ValueError(f"{name}[{index}]: {error}") from None
        raise
    return iou


def run_length_ious(
    preds: Sequence[Sequence[RunLengths]], target: Sequence[Sequence[RunLengths]], crowds: Sequence[Tensor | None]
) -> list[Tensor]:
    """`run_length_iou` of B images at once, in a fraction of the time."""
    parts = [slice(start, start + _AT_A_TIME) for start in range(0, len(preds), _AT_A_TIME)]
    return [iou for part in parts for iou in _ious(preds[part], target[part], crowds[part])]


def _ious(
    preds: Sequence[Sequence[RunLengths]], target: Sequence[Sequence[RunLengths]], crowds: Sequence[Tensor | None]
) -> list[Tensor]:
    ours, theirs = (_Masks.read([mask for masks in images for mask in masks]) for images in (preds, target))
    shapes = [(len(pred), len(true)) for pred, true in zip(preds, target, strict=True)]
    m, i = _pairs(*np.array(shapes).T)
    if (ours.sizes[m] != theirs.sizes[i]).any():
        raise ValueError("preds and target must share H and W")
    overlap = np.zeros(len(m), dtype=np.int64)
    near = np.flatnonzero((ours.first[m] < theirs.last[i]) & (theirs.first[i] < ours.last[m]))
    overlap[near] = _overlaps(ours, m[near], theirs, i[near])
    flags = [
        torch.zeros(len(true), dtype=torch.bool) if crowd is None else crowd.cpu()
        for true, crowd in zip(target, crowds, strict=True)
    ]
    area, other = torch.from_numpy(ours.areas[m]), torch.from_numpy(theirs.areas[i])
    iou = over_union(torch.from_numpy(overlap), area, other, torch.cat(flags)[torch.from_numpy(i)])
    return [part.view(shape) for part, shape in zip(iou.split([a * b for a, b in shapes]), shapes, strict=True)]


def _pairs(preds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every prediction with every truth of its image, from how many there are on each, (B,): their numbers, (P,) each."""
    others, first = np.repeat(target, preds), np.repeat(np.cumsum(target) - target, preds)  # of each prediction
    m = np.repeat(np.arange(len(others)), others)
    return m, np.arange(len(m)) - (np.cumsum(others) - others - first)[m]


@dataclass(frozen=True, slots=True)
class _Masks:
    """N masks, and what is known at the ends of their R runs.

    Args:
        starts: (N,) where the runs of each mask begin.
        counts: (N,) how many they are.
        ends: (R,) pixels of the mask up to there.
        inside: (R,) 1 for a run of the object, else 0.
        filled: (R,) pixels of the object up to there.
        sizes: (N, 2) H and W.
        areas: (N,) pixels of the object.
        first: (N,) where the object begins.
        last: (N,) where it ends.
    """

    starts: np.ndarray
    counts: np.ndarray
    ends: np.ndarray
    inside: np.ndarray
    filled: np.ndarray
    sizes: np.ndarray
    areas: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def read(cls, masks: Sequence[RunLengths]) -> _Masks:
        try:
            sizes, given = zip(*((mask["size"], mask["counts"]) for mask in masks), strict=True) if masks else ((), ())
            sizes = np.array(sizes, dtype=np.int64).reshape(len(masks), 2)
        except (KeyError, TypeError, ValueError):
            raise ValueError("no run lengths with `size` [H, W] and `counts`") from None
        runs, counts = _decoded(given)
        starts, pixels = np.cumsum(counts) - counts, sizes.prod(1)
        ends = np.cumsum(runs)
        before = ends[starts] - runs[starts]
        final = starts + counts - 1
        if (runs < 0).any() or (ends[final] - before != pixels).any() or (pixels < 1).any():
            raise ValueError("run lengths that are not as many pixels as their size")
        inside = (np.arange(len(runs)) - np.repeat(starts, counts)) & 1
        filled = np.cumsum(runs * inside)
        areas = np.diff(filled[final], prepend=0)
        filled -= np.repeat(filled[final] - areas, counts)
        last = pixels - runs[final] * (1 - inside[final])
        return cls(starts, counts, ends - np.repeat(before, counts), inside, filled, sizes, areas, runs[starts], last)


def _decoded(masks: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The runs of all masks one behind the other, and how many each has, of strings, bytes or lists."""
    given = [counts.decode("latin-1") if isinstance(counts, bytes) else counts for counts in masks]
    if {*map(type, given)} <= {str}:
        return run_lengths.from_strings(given)
    parts = [
        run_lengths.from_strings([counts])[0] if isinstance(counts, str) else np.asarray(counts) for counts in given
    ]
    if not all(part.ndim == 1 and len(part) and part.dtype.kind in "iu" for part in parts):
        raise ValueError("run lengths that are no list of whole numbers")
    return np.concatenate(parts, dtype=np.int64), np.array([len(part) for part in parts])


def _overlaps(ours: _Masks, m: np.ndarray, theirs: _Masks, i: np.ndarray) -> np.ndarray:
    """How many pixels P pairs of masks share, (P,).

    That is the sum over the object runs of the first, of how many object pixels of the second lie before the run's end, less
    how many lie before its begin, which is the end of a run of background.
    """
    stride = int(ours.sizes.prod(1).max(initial=0)) + 1  # keeps the masks apart on one line
    ends = [masks.ends + np.repeat(np.arange(len(masks.counts)) * stride, masks.counts) for masks in (ours, theirs)]
    # The edges of the first where the second is, relative to its mask, from where an object run begins to where one ends
    begin, stop = (
        np.searchsorted(ends[0], position + m * stride) - ours.starts[m]
        for position in (theirs.first[i] + 1, theirs.last[i])
    )
    begin, stop = begin & ~1, (stop + 1) & ~1
    some = np.flatnonzero(begin < stop)
    overlaps = np.zeros(len(m), dtype=np.int64)
    if len(some):
        counts = (stop - begin)[some]
        before = np.cumsum(counts) - counts
        edges = np.arange(counts.sum()) + np.repeat((ours.starts[m] + begin)[some] - before, counts)
        at = ours.ends[edges]
        run = np.searchsorted(ends[1], at + np.repeat(i[some] * stride, counts))  # of the second, where an edge lies
        filled = theirs.filled[run] - (theirs.ends[run] - at) * theirs.inside[run]
        overlaps[some] = np.add.reduceat(filled[1::2] - filled[::2], before // 2)
    return overlaps
