"""Human correction effort (Qin et al. 2022, arXiv:2203.03041): the clicks that would mend a mask.

Legend: H x W pixels; FP, what a mask has beside the object; FN, what it lacks of it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lightning_sal.formulas.contours import Chain, Mask, borders, count_vertices, labelled

RELAX, TOLERANCE = 5, 2.0  # the authors' values, in pixels


def human_correction_effort(pred: Mask, mask: Mask) -> int:
    """How many points and strokes mend a predicted mask (H, W); see `lightning_sal.metrics.functional`."""
    from skimage.morphology import skeletonize  # slow to import

    hits = pred & mask
    alarms, misses = pred & ~hits, mask & ~hits
    # Where edges need no care
    core = np.asarray(ndimage.binary_erosion(pred | mask, iterations=RELAX, border_value=1), dtype=bool)
    skeleton = skeletonize(mask).astype(bool)
    alarms_left = alarms & _grown(alarms & core, ~mask)
    misses_left = (misses & _grown(misses & core, ~pred)) | (skeleton & ~hits)  # thin parts are never forgiven
    return _effort(alarms_left, hits | misses_left) + _effort(misses_left, ~(hits | alarms_left | misses_left))


def _grown(seed: Mask, within: Mask) -> Mask:
    """A mask after as many steps of growth as of the erosion before, within another that holds it."""
    return np.asarray(ndimage.binary_dilation(seed, iterations=RELAX, mask=within), dtype=bool)


def _effort(wrong: Mask, beside: Mask) -> int:
    """Points along the borders of wrong regions that touch what lies beside, and a stroke for each region that does not."""
    near = np.asarray(ndimage.binary_dilation(beside), dtype=bool)
    regions, count = labelled(wrong, corners=True)
    touching: set[int] = set()
    seen = np.zeros_like(wrong)
    points = 0
    for chain in borders(wrong):
        for part in _parts(chain, near, seen):
            points += count_vertices(part, TOLERANCE)
            touching.add(int(regions[tuple(part[0])]))
    return points + count - len(touching)


def _parts(chain: Chain, near: Mask, seen: Mask) -> list[Chain]:
    """The pieces of a border that lie near something, of pixels that no piece had before; `seen` is filled with them."""
    rows, columns = chain.T
    first = np.zeros(len(chain), dtype=bool)
    first[np.unique(rows * near.shape[1] + columns, return_index=True)[1]] = True
    wanted = near[rows, columns] & ~seen[rows, columns] & first
    seen[rows[wanted], columns[wanted]] = True
    places = np.flatnonzero(wanted)
    if not len(places):
        return []
    parts = np.split(chain[places], np.flatnonzero(np.diff(places) > 1) + 1)
    if len(parts) > 1 and np.abs(parts[0][0] - parts[-1][-1]).max() == 1:  # one piece, across the start of the border
        parts = [*parts[1:-1], np.concatenate([parts[-1], parts[0][::-1]])]  # turned round, as the authors join them
    return parts
