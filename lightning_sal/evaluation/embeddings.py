"""How far apart the responses of a policy lie: spread of their embeddings, and pictures by principal components.

An embedding is the hidden state of the last layer at the last token of a response, where all of it has been read.

Legend: N responses, C hidden size, X (N, C) embeddings with their mean taken off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from lightning_sal.files.writing import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X"


@dataclass(frozen=True, slots=True)
class EmbeddedResponses:
    """Embeddings of responses of one step, with what tells the responses apart.

    Args:
        step: Of the training, from 0.
        embeddings: (N, C) float32.
        rewards: (N,) total rewards.
        tasks: Of each response.
        keys: Of the image group that each answers.
        hashes: First 16 hexadecimal digits of the SHA-256 of each text.
    """

    step: int
    embeddings: Tensor
    rewards: Tensor
    tasks: tuple[str, ...]
    keys: tuple[str, ...]
    hashes: tuple[str, ...]


def text_hash(text: str) -> str:
    """16 hexadecimal digits that tell a text from others."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def spread(embeddings: Tensor) -> float:
    """Mean squared distance to the centroid: 1/N sum_i |x_i - mean|^2, the trace of the covariance (divided by N).

    Args:
        embeddings: (N, C), N >= 1.

    Returns:
        In squared units of the embeddings, >= 0; 0 where all are one.
    """
    return _centred(embeddings).square().sum(1).mean().item()


def participation_ratio(embeddings: Tensor) -> float:
    """How many directions the spread fills: (sum_k l_k)^2 / sum_k l_k^2, l_k the eigenvalues of the covariance.

    k if the spread is equal in k directions and 0 in others; the effective dimension of Abbott, Rajan and Sompolinsky
    (2011). Computed without eigenvalues, as tr(X X^T)^2 / |X X^T|^2.

    Args:
        embeddings: (N, C), N >= 1.

    Returns:
        In [1, min(N - 1, C)]; 0 where there is no spread.
    """
    centred = _centred(embeddings)
    gram = centred @ centred.T
    squares = gram.square().sum().item()
    return gram.trace().item() ** 2 / squares if squares else 0.0


def principal_components(embeddings: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """Coordinates along the directions of most variance, each turned so that the largest of them in size is positive.

    Args:
        embeddings: (N, C), N >= 1, finite.
        count: Directions.

    Returns:
        (N, count) coordinates, and (count,) the share of the variance along each; 0 for directions that there are not.
    """
    left, sizes, _ = torch.linalg.svd(_centred(embeddings), full_matrices=False)
    left, sizes = left[:, :count], sizes.square()
    points = left * sizes[:count].sqrt()
    largest = points.gather(0, points.abs().argmax(0, keepdim=True))
    points = points * torch.where(largest < 0, -1.0, 1.0)
    shares = sizes[:count] / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny)
    missing = count - points.shape[1]
    return torch.nn.functional.pad(points, (0, missing)), torch.nn.functional.pad(shares, (0, missing))


def write_embeddings(path: Path, responses: EmbeddedResponses) -> None:
    """Write a .npz with the fields of `EmbeddedResponses`, which `read_embeddings` reads; no pickle in it."""
    arrays: dict[str, Any] = {"step": responses.step, "embeddings": responses.embeddings.numpy()}
    arrays |= {"rewards": responses.rewards.numpy()}
    arrays |= {name: np.array(getattr(responses, name), dtype=str) for name in ("tasks", "keys", "hashes")}
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def read_embeddings(path: Path) -> EmbeddedResponses:
    """What `write_embeddings` wrote.

    Raises:
        ValueError: If the file is another; the line names it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return EmbeddedResponses(
                int(file["step"]),
                torch.from_numpy(file["embeddings"]),
                torch.from_numpy(file["rewards"]),
                *(tuple(file[name].tolist()) for name in ("tasks", "keys", "hashes")),
            )
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: not embeddings as EmbeddingSpread writes them: {error}") from None


def compare_embeddings(runs: Mapping[str, Sequence[Path]], out: Path) -> dict[str, tuple[float, float]]:
    """Lay the responses of several runs into one plane, by principal components of all of them together.

    Args:
        runs: Name of a run -> files that `lightning_sal.callbacks.EmbeddingSpread` wrote, of whichever steps.
        out: The picture, such as spread.png.

    Returns:
        Name -> (spread, participation ratio), each of a run's own responses.

    Raises:
        ValueError: If there is no run or a run has no file, a file is another, or embeddings differ in width.
    """
    read = {name: [read_embeddings(Path(path)) for path in files] for name, files in runs.items()}
    if not read or not all(read.values()):
        raise ValueError("compare_embeddings: name at least one run, and at least one file of each")
    widths = {name: {each.embeddings.shape[1] for each in parts} for name, parts in read.items()}
    if len(set().union(*widths.values())) > 1:
        raise ValueError(f"compare_embeddings: runs of one hidden size are compared, and these have {widths}")
    rows = {name: torch.cat([each.embeddings for each in parts]) for name, parts in read.items()}
    measured = {name: (spread(own), participation_ratio(own)) for name, own in rows.items()}
    points, shares = principal_components(torch.cat(list(rows.values())))

    from matplotlib.figure import Figure

    whole_figure = Figure(figsize=(6, 6), layout="constrained")
    axes = whole_figure.subplots()
    parts = zip(rows, points.split([len(own) for own in rows.values()]), strict=True)
    for number, (name, own) in enumerate(parts):
        label = "{}: spread {:.3g}, participation ratio {:.3g}".format(name, *measured[name])
        style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number}", "linewidths": 0}
        axes.scatter(*own.T.numpy(), s=16, alpha=0.6, label=label, **style)
    _name_axes(axes, shares)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    whole_figure.savefig(out)
    return measured


def figure(responses: EmbeddedResponses) -> Figure:
    """The responses of a step by principal components, coloured by reward, a marker for each task."""
    from matplotlib.figure import Figure

    points, shares = principal_components(responses.embeddings)
    rewards = responses.rewards.float()
    whole_figure = Figure(figsize=(6, 5), layout="constrained")
    axes = whole_figure.subplots()
    limits = {"vmin": rewards.min().item(), "vmax": rewards.max().item(), "cmap": "viridis"}
    for number, task in enumerate(dict.fromkeys(responses.tasks)):
        own = [row for row, other in enumerate(responses.tasks) if other == task]
        drawn = axes.scatter(
            *points[own].T.numpy(), c=rewards[own].numpy(), marker=MARKERS[number % len(MARKERS)], label=task, **limits
        )
    whole_figure.colorbar(drawn, ax=axes, label="reward")
    measured = spread(responses.embeddings), participation_ratio(responses.embeddings)
    axes.set_title(
        "{:,} responses, spread {:.3g}, participation ratio {:.3g}".format(len(points), *measured), fontsize=10
    )
    _name_axes(axes, shares)
    axes.legend(frameon=False)
    return whole_figure


def _name_axes(axes: Any, shares: Tensor) -> None:
    first, second = (f"{name} ({share:.0%} of the variance)" for name, share in zip("12", shares.tolist(), strict=True))
    axes.set(xlabel=f"principal component {first}", ylabel=f"principal component {second}")


def _centred(embeddings: Tensor) -> Tensor:
    embeddings = embeddings.double()
    return embeddings - embeddings.mean(0)
