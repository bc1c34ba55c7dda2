"""Mean and error of differences over seeds and scenes."""

import numpy as np
import pytest
from scipy import stats

from lightning_sal.evaluation.bootstrap import paired_bootstrap
from lightning_sal.evaluation.crossed import Components, detectable, estimate, holm, pooled

TABLE = np.array([[3, 1, 4, 1, 5, 9], [4, 3, 5, 2, 7, 9], [6, 4, 9, 3, 8, 13], [5, 4, 6, 2, 6, 11.0]])


def drawn(rng, seeds, scenes, seed, scene, rest, mean=0.0):
    """Differences with these variances."""
    effects = (seed, (seeds, 1)), (scene, (1, scenes)), (rest, (seeds, scenes))
    return mean + sum(variance**0.5 * rng.standard_normal(shape) for variance, shape in effects)


def test_by_hand():
    """Seeds and scenes have the means 1 and 3: mean squares 4 and 4, rest 0; se^2 = (4 + 4) / 4, df = 8^2 / (2 4^2)."""
    found = estimate(np.array([[0.0, 2.0], [2.0, 4.0]]))
    assert (found.mean, found.df) == (2, 2)
    assert found.se == pytest.approx(2**0.5)
    assert found.components == Components(2.0, 2.0, 0.0)


def test_it_is_reml_where_all_components_are_positive():
    """statsmodels 0.15: MixedLM, reml=True, variance components of seed and scene."""
    found = estimate(TABLE)
    assert found.mean == pytest.approx(5.416666667)
    assert found.se == pytest.approx(1.40877922, rel=1e-4)
    parts = found.components
    assert (parts.seed, parts.scene, parts.rest) == pytest.approx((1.84452, 9.00506, 0.54445), rel=1e-4)


def test_one_seed_is_the_paired_test_over_scenes():
    ours, theirs = TABLE[2], TABLE[0]
    found = estimate((ours - theirs)[None])
    assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.interval() == pytest.approx(tuple(stats.ttest_rel(ours, theirs).confidence_interval()))
    assert found.components.seed is None


def test_without_an_effect_of_seeds_it_is_near_the_bootstrap_over_scenes():
    table = drawn(np.random.default_rng(1), 5, 400, 0.0, 1.0, 0.5, mean=0.1)
    _, low, high = paired_bootstrap(table.mean(0), np.zeros(400))
    assert estimate(table).interval() == pytest.approx((low, high), abs=0.03)


def test_the_error_is_never_below_that_of_scenes_or_of_seeds_alone():
    for table in np.random.default_rng(2).standard_normal((50, 4, 9)):
        found = estimate(table)
        alone = [np.std(table.mean(axis), ddof=1) / table.shape[1 - axis] ** 0.5 for axis in (0, 1)]
        assert found.se >= max(alone) - 1e-12


@pytest.mark.parametrize("seed", [0.0, 0.003, 0.1])
def test_intervals_cover_the_truth(seed):
    """Of 1,000 simulated comparisons 95 %, within 4 standard errors of that share, whatever lies between seeds."""
    rng = np.random.default_rng(5)
    found = [estimate(drawn(rng, 5, 200, seed, 0.3, 0.7)).interval() for _ in range(1000)]
    assert np.mean([low <= 0 <= high for low, high in found]) == pytest.approx(
        0.95, abs=4 * (0.95 * 0.05 / 1000) ** 0.5
    )


def test_equal_runs_do_not_differ():
    found = estimate(np.zeros((3, 4)))
    assert (found.mean, found.se, found.p, found.interval()) == (0, 0, 1, (0, 0))


@pytest.mark.parametrize("shape", [(0, 5), (3, 1), (4,)])
def test_what_is_no_table_is_refused(shape):
    with pytest.raises(ValueError, match="seeds by at least 2 scenes"):
        estimate(np.zeros(shape))


def test_what_can_be_detected_is_found_as_often_as_said():
    rng, parts = np.random.default_rng(7), Components(0.02, 0.4, 0.6)
    effect = detectable(parts, 5, 200, power=0.8)
    found = [estimate(drawn(rng, 5, 200, 0.02, 0.4, 0.6, mean=effect)).p < 0.05 for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)  # degrees of freedom are estimated in each, so roughly


def test_many_scenes_and_no_effect_of_seeds_need_the_well_known_2_8_errors():
    """(1.960 + 0.842) sqrt(1 / 10,000) by the normal distribution."""
    assert detectable(Components(None, 1.0, 0.0), 1, 10_000) == pytest.approx(0.02802, rel=1e-3)
    assert detectable(Components(0.0, 1.0, 0.0), 5, 10_000) == pytest.approx(0.02802, rel=1e-3)
    assert detectable(Components(0.0, 1.0, 0.0), 5, 10_000, level=0.05 / 18) > 0.03


def test_components_of_several_comparisons_are_their_means():
    one, two = estimate(TABLE), estimate(2 * TABLE)
    assert pooled([one, two]).scene == pytest.approx(2.5 * one.components.scene)
    assert pooled([estimate(TABLE[:1])]).seed is None


def test_holm_by_hand():
    """Sorted .01, .02, .03, .5 times 4, 3, 2, 1, none below the one before; statsmodels' multipletests gives the same."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
