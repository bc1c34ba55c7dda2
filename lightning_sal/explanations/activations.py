"""Explanations by what visual tokens would predict themselves: their hidden states through the output layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.method import Method
from lightning_sal.inference.maps import LabelMaps


@dataclass(frozen=True)
class CAM(Method):
    """Class activation map by the logit lens: m(p) = sum over tokens a of the label of h_p . w_a.

    h_p is the hidden state of visual token p behind the last norm, w_a the row of token a in the output layer. Zhou et al.
    2016 (CAM, arXiv:1512.04150), whose classes are tokens here.
    """

    @torch.no_grad()
    def maps(self, case: Case) -> LabelMaps:
        hidden, rows = case.read()[0, case.visual], case.policy.backbone.rows
        return tuple(case.on_images(hidden @ rows(case.ids(span)).sum(0)) for span in case.labels)


@dataclass(frozen=True)
class TAM(Method):
    """Token activation map: CAM of a token without what earlier tokens of the text would explain, then smoothed.

    A_a(p) = ReLU(h_p . w_a) is the activation of token a. Of the tokens i of text before it, without repetitions of a, the
    interference is I = sum of r_i A_i / sum of r_i, by relevance r_i = ReLU(h_i . w_a). What is left is ReLU(A_a - s I),
    with s by least squares, s = A_a . I / I . I; the rank Gaussian filter smooths it on the grid of each image. The map of a
    label is the sum of those of its tokens. Li et al. 2025 (arXiv:2506.23270).

    The text is what stands behind the first image, without special tokens of the chat, and the response so far.
    """

    @torch.no_grad()
    def maps(self, case: Case) -> LabelMaps:
        hidden = case.read()[0]
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        ids, visual = torch.cat([case.prompts.ids[0], case.tokens[0]]), case.visual
        special = torch.tensor(case.policy.processor.tokenizer.all_special_ids, device=ids.device)
        is_text = ~torch.isin(ids, special) & (torch.arange(len(ids), device=ids.device) > visual[0])
        rows = case.policy.backbone.rows(ids).to(hidden.dtype)
        activations = (rows @ hidden[visual].T).clamp(min=0)  # (S, N)

        def left(token: int) -> Tensor:
            before = is_text & (ids != ids[token])
            before[token:] = False
            relevance = (hidden[before] @ rows[token]).clamp(min=0)
            return without(activations[token], relevance @ activations[before])

        found = []
        for first, last in case.labels:
            parts = [case.on_images(left(case.length + at)) for at in range(first, last + 1)]
            found.append(tuple(torch.stack(list(map(rank_gaussian, each))).sum(0) for each in zip(*parts, strict=True)))
        return tuple(found)


def without(activation: Tensor, interference: Tensor) -> Tensor:
    """(N,) ReLU(A - s I), with s by least squares, so that the scale of I does not matter; A where I is 0."""
    square = interference.square().sum()
    scale = torch.where(square > 0, (activation * interference).sum() / square, 0.0)
    return (activation - scale * interference).clamp(min=0)


def rank_gaussian(map: Tensor) -> Tensor:
    """The rank Gaussian filter of TAM: the 3 x 3 values around each cell, sorted, averaged by a Gaussian about their median.

    The weight of the value of rank k = -4 ... 4 is exp(-k^2 / 2 c^2), with c the standard deviation of the nine values over
    their mean: where they are alike the median is taken, where they differ much their mean. Edges are mirrored.

    Args:
        map: (rows, columns), none negative.

    Returns:
        (rows, columns).
    """
    padded = map[_mirrored(map.shape[0], map.device)][:, _mirrored(map.shape[1], map.device)]
    window = padded.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2).sort(2).values  # (rows, columns, 9)
    tiny = torch.finfo(map.dtype).tiny
    spread = window.std(2, correction=0) / window.mean(2).clamp(min=tiny)
    rank = torch.arange(-4, 5, dtype=map.dtype, device=map.device)
    weight = (-rank.square() / (2 * spread.square()).clamp(min=tiny)[..., None]).exp()
    return (window * weight).sum(2) / weight.sum(2)


def _mirrored(size: int, device: torch.device) -> Tensor:
    """Places -1 ... size, those outside mirrored at the edge cells."""
    at = torch.arange(-1, size + 1, device=device).abs()
    return torch.minimum(at, 2 * (size - 1) - at).clamp(min=0)
