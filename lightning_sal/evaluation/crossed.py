"""The mean of differences that are paired over seeds and over scenes, both of which stand for many others, and its error.

The model of a difference is d_si = mean + seed_s + scene_i + rest_si, with three random effects (crossed, balanced). From
the mean squares of the two-way table without replication (Searle, Casella, McCulloch 1992, Variance components):

    E MS_seed = I var_seed + var_rest,  E MS_scene = S var_scene + var_rest,  E MS_rest = var_rest,
    se^2 = var_seed / S + var_scene / I + var_rest / (S I) = (MS_seed + MS_scene - MS_rest) / (S I),

which is what REML gives where all three are positive. Legend: S seeds, I scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of the random effects, each >= 0, in the square of the unit of the differences.

    Args:
        seed: Between seeds; None where one seed cannot tell.
        scene: Between scenes; of a single seed together with `rest`.
        rest: What is left.
    """

    seed: float | None
    scene: float
    rest: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean difference.

    Args:
        mean: Over seeds and scenes.
        se: Its standard error.
        df: Degrees of freedom of the t distribution that it is judged by.
        seeds: S; of a single seed the error is over scenes alone.
        scenes: I.
        components: Of the variance.
    """

    mean: float
    se: float
    df: float
    seeds: int
    scenes: int
    components: Components

    @property
    def p(self) -> float:
        """Of the two-sided test that the true difference is 0."""
        from scipy.stats import t

        if not self.se:
            return float(self.mean == 0)
        return float(2 * t.sf(abs(self.mean) / self.se, self.df))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end of the interval of a coverage in (0, 1)."""
        from scipy.stats import t

        half = float(t.ppf((1 + level) / 2, self.df)) * self.se if self.se else 0.0
        return self.mean - half, self.mean + half


def estimate(differences: np.ndarray) -> Estimate:
    """Mean difference and its error over seeds and scenes; with a single seed over scenes alone.

    A variance that the mean squares put below 0 counts as 0. So the error is never smaller than what seeds alone, scenes
    alone, or single differences alone would give: se^2 S I is the largest of MS_seed + MS_scene - MS_rest, MS_seed, MS_scene
    and MS_rest. Degrees of freedom by Satterthwaite 1946, of the mean squares that enter it.

    Args:
        differences: (S, I) ours - theirs, of the same seed and the same scene; I >= 2.

    Raises:
        ValueError: If it is no such table.
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"differences are a table of seeds by at least 2 scenes, not {table.shape}")
    seeds, scenes = table.shape
    mean = float(table.mean())
    if seeds == 1:
        variance = float(table.var(ddof=1))
        components = Components(None, variance, 0.0)
        return Estimate(mean, (variance / scenes) ** 0.5, scenes - 1, seeds, scenes, components)
    by_seed, by_scene = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    seed = scenes * float(np.square(by_seed - mean).sum()) / (seeds - 1)
    scene = seeds * float(np.square(by_scene - mean).sum()) / (scenes - 1)
    rest = float(np.square(table - by_seed - by_scene + mean).sum()) / ((seeds - 1) * (scenes - 1))
    total, df = _summed(seed, scene, rest, seeds, scenes)
    components = Components(max(seed - rest, 0.0) / scenes, max(scene - rest, 0.0) / seeds, rest)
    return Estimate(mean, (total / (seeds * scenes)) ** 0.5, df, seeds, scenes, components)


def _summed(seed: float, scene: float, rest: float, seeds: int, scenes: int) -> tuple[float, float]:
    """se^2 S I of three mean squares, and its degrees of freedom: (sum c MS)^2 / sum (c MS)^2 / df."""
    signs = float(seed > rest), float(scene > rest)
    terms = (
        (signs[0] * seed, seeds - 1),
        (signs[1] * scene, scenes - 1),
        ((1 - sum(signs)) * rest, (seeds - 1) * (scenes - 1)),
    )
    total = sum(term for term, _ in terms)
    spread = sum(term**2 / df for term, df in terms)
    return total, total**2 / spread if spread else float(seeds * scenes - 1)


def pooled(estimates: Sequence[Estimate]) -> Components:
    """The components in the mean of several comparisons, of which one alone, over few seeds, says little."""
    every = [each.components for each in estimates]
    seed = [each.seed for each in every if each.seed is not None]
    return Components(
        float(np.mean(seed)) if seed else None,
        float(np.mean([each.scene for each in every])),
        float(np.mean([each.rest for each in every])),
    )


def detectable(components: Components, seeds: int, scenes: int, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true difference that a two-sided test finds with a probability: its power, by the noncentral t.

    Args:
        components: Expected; a seed variance that is not known counts as 0.
        seeds: S, to be run.
        scenes: I, to be measured on.
        power: In (level, 1).
        level: Of the test, in (0, 1).
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    rest = components.rest
    if seeds == 1:
        total, df = components.scene + rest, float(scenes - 1)
        error = (total / scenes) ** 0.5
    else:
        seed, scene = scenes * (components.seed or 0.0) + rest, seeds * components.scene + rest
        total, df = _summed(seed, scene, rest, seeds, scenes)
        error = (total / (seeds * scenes)) ** 0.5
    critical = float(t.ppf(1 - level / 2, df))
    # That it is found with the wrong sign adds nothing at a power that anyone wants.
    effect: Any = brentq(lambda effect: nct.sf(critical, df, effect) - power, 0.0, 10 * critical + 10)
    return error * float(effect)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm 1979.

    The k-th smallest of m is multiplied by m - k + 1, and none is smaller than the one before it.

    The chance that any of the m differences that are truly 0 is called significant then is at most the level.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected.tolist()
