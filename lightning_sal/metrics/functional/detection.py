"""Precision, recall and F1 of boxes that come without scores.

Legend: M predicted and I true boxes of one image.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def count_matches(iou: Tensor, threshold: float = 0.5) -> int:
    """The most pairs of one prediction and one truth each that overlap enough: a maximum matching by the Hungarian method.

    Without scores there is no order in which predictions could be served, so none is preferred: the pairs are chosen
    together, and no greedy order finds more.

    Args:
        iou: (M, I) IoU of every prediction with every truth.
        threshold: Least IoU of a pair, in (0, 1].

    Example:
        >>> import torch
        >>> count_matches(torch.tensor([[0.9, 0.6], [0.7, 0.1]]))  # a greedy match of the first pair leaves none
        2
    """
    near = (iou >= threshold).cpu().numpy()
    return int(near[linear_sum_assignment(near, maximize=True)].sum())


def precision_recall_f1(matches: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    r"""Precision, recall and F1 of B images.

    .. math:: P = \frac{c}{M}, \quad R = \frac{c}{I}, \quad F_1 = \frac{2 c}{M + I}

    for c matches. All are 1 where an image has neither a prediction nor a truth, and 0 where it has only one of them.

    Args:
        matches: (B,) c.
        predicted: (B,) M.
        true: (B,) I.

    Returns:
        (3, B) float64 in [0, 1].

    Example:
        >>> import torch
        >>> precision_recall_f1(*torch.tensor([[2, 0, 0], [4, 0, 3], [3, 0, 0]]))
        tensor([[0.5000, 1.0000, 0.0000],
                [0.6667, 1.0000, 0.0000],
                [0.5714, 1.0000, 0.0000]], dtype=torch.float64)
    """
    matches, predicted, true = matches.double(), predicted.double(), true.double()
    values = torch.stack([matches / predicted, matches / true, 2 * matches / (predicted + true)])
    return torch.where(predicted + true > 0, values.nan_to_num(0.0), 1.0)
