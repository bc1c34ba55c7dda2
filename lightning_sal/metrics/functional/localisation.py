"""Where the mass of an attribution map lies: pointing games, and the share of mass in a mask without resizing the map.

Legend: B samples, H x W pixels, rows x columns cells of a map that is coarser than its image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_attributions, as_float64, as_masks, score_dtype


def energy_pointing_game(maps: Tensor, target: Tensor) -> Tensor:
    r"""The share of an attribution map's mass that lies inside a mask, in [0, 1].

    .. math:: \text{EPG} = \frac{\sum_{i,j} y_{ij} \max(m_{ij}, 0)}{\sum_{i,j} \max(m_{ij}, 0)}

    Only what is positive has mass; a map without mass scores 0. Wang et al. 2020 (Score-CAM, arXiv 1910.01279).

    Args:
        maps: (B, H, W) attribution maps, any finite numbers.
        target: (B, H, W) masks: bool, or numbers in [0, 1], True where > 0.5; none is empty.

    Returns:
        (B,), on the device of `maps`: float64 if `maps` is, else float32.

    Raises:
        ValueError: If shapes differ, a value is not finite, or a mask is empty, so that it has no share; the message
            names the sample.

    Example:
        >>> import torch
        >>> energy_pointing_game(torch.tensor([[[3.0, 1.0, -2.0]]]), torch.tensor([[[1, 0, 1]]]))
        tensor([0.7500])
    """
    maps, target = as_attributions(maps, target), as_masks(target, "target")
    empty = ~target.flatten(1).any(1)
    if empty.any():
        raise ValueError(f"target[{int(empty.int().argmax())}] is empty: it has no share of a map; leave it out")
    inside = as_float64(target)
    return mass_share(maps, inside, torch.ones_like(inside)).to(score_dtype(maps))


def pointing_game(maps: Tensor, target: Tensor, tolerance: float = 0.0) -> Tensor:
    """Whether the largest value of an attribution map lies in a mask: 1 or 0.

    Of several largest values the first counts, row by row. A map without a positive value points nowhere and scores 0, and
    so does what points at an empty mask. Zhang et al. 2018 (Excitation backprop, arXiv 1608.00507), who allow 15 pixels.

    Args:
        maps: (B, H, W) attribution maps, any finite numbers.
        target: (B, H, W) masks: bool, or numbers in [0, 1], True where > 0.5.
        tolerance: Pixels that may lie between the largest value and the nearest pixel of the mask, >= 0 (Euclidean).

    Returns:
        (B,), on the device of `maps`: float64 if `maps` is, else float32.

    Raises:
        ValueError: If shapes differ, a value is not finite, or the tolerance is negative; the message names the sample.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[0.1, 0.9, 0.2]], [[0.0, 0.0, 0.0]]])
        >>> target = torch.tensor([[[0, 0, 1]], [[1, 1, 1]]])
        >>> pointing_game(maps, target), pointing_game(maps, target, tolerance=1)
        (tensor([0., 0.]), tensor([1., 0.]))
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be >= 0 pixels, not {tolerance}")
    maps, target = as_attributions(maps, target), as_masks(target, "target")
    height, width = maps.shape[1:]
    highest, peak = maps.flatten(1).max(1) if len(maps) else (maps.new_zeros(0), maps.new_zeros(0, dtype=torch.long))
    down = torch.arange(height, device=maps.device)[:, None] - (peak // width)[:, None, None]
    across = torch.arange(width, device=maps.device) - (peak % width)[:, None, None]
    hit = (target & (down**2 + across**2 <= tolerance**2)).flatten(1).any(1)
    return (hit & (highest > 0)).to(score_dtype(maps))


def mass_share(maps: Tensor, inside: Tensor, whole: Tensor) -> Tensor:
    r"""The share of a map's mass that lies inside a mask, by how much each cell lays inside it and on the whole image.

    .. math:: \frac{\langle \max(m, 0), W_\text{inside} \rangle}{\langle \max(m, 0), W_\text{whole} \rangle}

    With `alignment_weights` of a mask and of a mask that is all True this is the energy pointing game of the map after
    bilinear resizing to the image, which is never made.

    Args:
        maps: (..., rows, columns) attribution maps, finite; what is negative has no mass.
        inside: (rows, columns), or as `maps`: `alignment_weights` of the mask.
        whole: Likewise: `alignment_weights` of the whole image.

    Returns:
        (...,) float64 in [0, 1]; 0 for a map without mass and for an empty mask.

    Example:
        >>> import torch
        >>> left, whole = torch.tensor([[1, 1, 0, 0]]).bool(), torch.ones(1, 4).bool()
        >>> mass_share(torch.tensor([[3.0, 1.0]]), alignment_weights(left, 1, 2), alignment_weights(whole, 1, 2))
        tensor(0.6875, dtype=torch.float64)
    """
    mass = maps.double().clamp(min=0)
    within, total = (mass * inside).sum((-2, -1)), (mass * whole).sum((-2, -1))
    return torch.where(total > 0, within / total, 0.0)


def alignment_weights(mask: Tensor, rows: int, columns: int) -> Tensor:
    r"""How much of each cell's value lands inside a mask when a map is resized bilinearly to the mask's size.

    .. math:: \sum_{x,y} M_{yx} (R_y m R_x^\top)_{yx} = \langle m, R_y^\top M R_x \rangle

    with R the one-dimensional interpolation with half-pixel centres and clamped edges, that of
    `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` and of `cv2.INTER_LINEAR`. The mass inside a
    mask is linear in the map, so that these weights hold for every map on the grid.

    Args:
        mask: (H, W): bool, or the weights of pixels.
        rows: Rows of the map, > 0.
        columns: Columns of the map, > 0.

    Returns:
        (rows, columns) float64, on the device of `mask`; those of a whole image sum to H * W.

    Raises:
        ValueError: If the mask is not (H, W) with pixels, or the map has no cells.

    Example:
        >>> import torch
        >>> alignment_weights(torch.tensor([[1, 1, 0, 0]]), rows=1, columns=2)
        tensor([[1.7500, 0.2500]], dtype=torch.float64)
    """
    if mask.ndim != 2 or not mask.numel() or rows < 1 or columns < 1:
        raise ValueError(
            f"mask {tuple(mask.shape)} must be (H, W) with pixels, and the map have cells, not {rows} x {columns}"
        )
    down, across = _interpolation(mask.shape[0], rows, mask.device), _interpolation(mask.shape[1], columns, mask.device)
    return down.T @ as_float64(mask) @ across


def _interpolation(size: int, cells: int, device: torch.device) -> Tensor:
    """(size, cells) float64: what each of `size` pixels takes of each cell, bilinearly."""
    at = (torch.arange(size, dtype=torch.float64, device=device) + 0.5) * cells / size - 0.5
    away = (at.clamp(0, cells - 1)[:, None] - torch.arange(cells, device=device)).abs()
    return (1 - away).clamp(min=0)
