"""Insertion and deletion: whether the pixels that an attribution map names are those that a score depends on.

Petsiuk et al. 2018 (RISE, arXiv 1806.07421). Deletion takes pixels out of the picture, the most salient first; insertion
adds them to a blank one. Deletion is better the faster the score falls, insertion the faster it rises.

Legend: B samples, N shares of pixels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_attributions


def deletion_order(map: Tensor) -> Tensor:
    """The pixels of an attribution map from the most salient to the least, equal ones row by row.

    Args:
        map: (H, W), any finite numbers.

    Returns:
        (H * W,) int64: indices into the flat map.

    Raises:
        ValueError: If the map is not (H, W) with pixels, or a value is not finite.

    Example:
        >>> import torch
        >>> deletion_order(torch.tensor([[0.0, 2.0], [5.0, 0.0]])).tolist()
        [2, 1, 0, 3]
    """
    return as_attributions(map[None])[0].flatten().argsort(descending=True, stable=True)


def perturbed(
    image: Tensor,
    map: Tensor,
    shares: Sequence[float],
    mode: Literal["deletion", "insertion"] = "deletion",
    baseline: Tensor | int = 0,
) -> Tensor:
    """An image of which the most salient pixels are taken away, or are all that is there, for N shares of pixels.

    Args:
        image: (H, W, 3) uint8.
        map: (H, W) attribution map at the size of the image, any finite numbers.
        shares: N shares of pixels in [0, 1]; round(share * H * W) pixels are meant.
        mode: `deletion` puts the baseline where the map is largest, `insertion` everywhere else.
        baseline: What stands for nothing: a grey value from 0 (black, the blank picture) to 255, or uint8 that broadcasts
            to the image, a colour (3,) or a picture (H, W, 3) such as `blurred` gives.

    Returns:
        (N, H, W, 3) uint8, on the device of the image.

    Raises:
        ValueError: If the image is not (H, W, 3) uint8, the map is of another size or not finite, or a share, the mode or
            the baseline is none of the above.

    Example:
        >>> import torch
        >>> image, map = torch.full((1, 4, 3), 9, dtype=torch.uint8), torch.tensor([[0.1, 0.4, 0.3, 0.2]])
        >>> perturbed(image, map, (0.25, 0.5))[..., 0].tolist()
        [[[9, 0, 9, 9]], [[9, 0, 0, 9]]]
        >>> perturbed(image, map, (0.25, 0.5), "insertion", baseline=5)[..., 0].tolist()
        [[[5, 9, 5, 5]], [[5, 9, 9, 5]]]
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != map.shape:
        raise ValueError(
            f"image {tuple(image.shape)} {image.dtype} must be (H, W, 3) uint8, and map {tuple(map.shape)} (H, W)"
        )
    if mode not in ("deletion", "insertion"):
        raise ValueError(f"mode must be deletion or insertion, not {mode}")
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares must lie in [0, 1], not {list(shares)}")
    blank = _as_picture(baseline, image)
    salient, other = (blank, image) if mode == "deletion" else (image, blank)
    order = deletion_order(map).to(image.device)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=image.device))
    counts = torch.tensor([round(share * len(order)) for share in shares], device=image.device)
    chosen = (rank < counts[:, None]).view(len(counts), *map.shape, 1)
    return torch.where(chosen, salient, other)


def _as_picture(baseline: Tensor | int, image: Tensor) -> Tensor:
    if isinstance(baseline, int) and 0 <= baseline <= 255:
        return torch.full_like(image, baseline)
    if isinstance(baseline, Tensor) and baseline.dtype == torch.uint8:
        return baseline.to(image.device).expand_as(image)
    raise ValueError("baseline must be a grey value from 0 to 255, or uint8: a colour (3,) or a picture (H, W, 3)")


def blurred(image: Tensor, sigma: float) -> Tensor:
    """An image without its detail, as a baseline that has no hard edges: a Gaussian over rows and columns.

    Args:
        image: (H, W, 3) uint8.
        sigma: Standard deviation in pixels, > 0; edges are repeated. Petsiuk et al. take 5 at 224 pixels.

    Returns:
        (H, W, 3) uint8, on the device of the image.

    Raises:
        ValueError: If sigma is not > 0.

    Example:
        >>> import torch
        >>> image = torch.tensor([0, 0, 255, 0, 0], dtype=torch.uint8)[:, None, None].expand(5, 5, 3)
        >>> blurred(image, sigma=0.5)[:, 0, 0].tolist()
        [0, 27, 201, 27, 0]
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be > 0 pixels, not {sigma}")
    smooth = gaussian_filter(image.cpu().double().numpy(), sigma=(sigma, sigma, 0), mode="nearest")
    return torch.from_numpy(smooth).round().to(image.device, torch.uint8)


def normalised(scores: Tensor, blank: Tensor, whole: Tensor) -> Tensor:
    r"""Scores on the scale on which the blank picture has 0 and the whole picture 100.

    .. math:: 100 \frac{s - s_\text{blank}}{s_\text{whole} - s_\text{blank}}

    Values may lie outside; they lie far outside where the picture hardly matters to the score.

    Args:
        scores: (..., N), for instance mean log-likelihoods of a response, in nats.
        blank: (...,) of the same response with the blank picture, that is the baseline.
        whole: (...,) with the whole picture.

    Returns:
        (..., N) float64; NaN where blank and whole have the same score, so that there is no scale.

    Example:
        >>> import torch
        >>> normalised(torch.tensor([[-2.0, -0.5], [-1.0, -2.0]]), torch.tensor([-2.0, -1.0]), torch.tensor([0.0, -1.0]))
        tensor([[ 0., 75.],
                [nan, nan]], dtype=torch.float64)
    """
    blank, whole = blank.double()[..., None], whole.double()[..., None]
    return torch.where(whole == blank, torch.nan, 100 * (scores.double() - blank) / (whole - blank))


def area_under_curve(values: Tensor, shares: Sequence[float]) -> Tensor:
    """The area under a curve over the share of pixels, by the trapezoidal rule: its mean height.

    Args:
        values: (..., N).
        shares: N shares, ascending from 0 to 1.

    Returns:
        (...,), in the unit of `values`.

    Raises:
        ValueError: If the shares do not ascend from 0 to 1, or are not as many as the values.

    Example:
        >>> import torch
        >>> area_under_curve(torch.tensor([100.0, 20.0, 0.0]), (0, 0.5, 1))
        tensor(35.)
    """
    places = torch.tensor(list(shares), dtype=values.dtype, device=values.device)
    ascending = len(places) > 1 and places[0] == 0 and places[-1] == 1 and bool((places.diff() > 0).all())
    if not ascending or values.shape[-1] != len(places):
        raise ValueError(
            f"shares must ascend from 0 to 1, one for each of {values.shape[-1]} values, not {list(shares)}"
        )
    return torch.trapezoid(values, places)
