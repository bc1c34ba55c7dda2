"""Insertion and deletion of responses: which pixels go, and that their scores are those of the policy."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.explanations.faithfulness import Pictures, on_pixels
from lightning_sal.explanations.measuring import Measures, ends_of, regions_of
from lightning_sal.metrics.functional.faithfulness import blurred, perturbed
from lightning_sal.metrics.functional.localisation import energy_pointing_game, pointing_game
from tests.explanations.parts import cases, policy


@pytest.fixture
def one():
    return next(case for case in cases() if len(case.group.images) == 1)


@pytest.fixture
def several():
    return next(case for case in cases() if len(case.group.images) > 1)


def constant(case):
    return [torch.zeros(image.shape[:2]) for image in case.group.images]


def test_a_map_that_says_nothing_takes_pixels_row_by_row(one):
    (image,) = one.group.images
    height, width, _ = image.shape
    (deleted,), (inserted,) = (
        Pictures(one).between(constant(one), (0.25,), mode)[0] for mode in ("deletion", "insertion")
    )
    gone = round(0.25 * height * width) // width
    assert torch.equal(deleted[gone:], image[gone:])
    assert not deleted[:gone].any()
    assert torch.equal(inserted[:gone], image[:gone])
    assert not inserted[gone:].any()


def test_one_image_is_changed_as_the_metric_says(one):
    (image,) = one.group.images
    map = torch.rand(image.shape[:2], generator=torch.Generator().manual_seed(0))
    shares = (0.05, 0.3, 0.9)
    for mode in ("deletion", "insertion"):
        found = torch.stack([picture for (picture,) in Pictures(one).between([map], shares, mode)])
        assert torch.equal(found, perturbed(image, map, shares, mode))
        soft = torch.stack([picture for (picture,) in Pictures(one, blur=3.0).between([map], shares, mode)])
        assert torch.equal(soft, perturbed(image, map, shares, mode, blurred(image, 3.0)))


def test_the_pixels_of_several_images_have_one_order(several):
    maps = constant(several)
    maps[1] += 1.0  # all of the second comes first
    pixels = [map.numel() for map in maps]
    (found,) = Pictures(several).between(maps, (pixels[1] / sum(pixels),), "deletion")
    for number, (picture, image) in enumerate(zip(found, several.group.images, strict=True)):
        assert torch.equal(picture, torch.zeros_like(image) if number == 1 else image)


@torch.no_grad()
def test_scores_are_mean_log_likelihoods_in_any_batch(several):
    pictures = Pictures(several, batch=2)
    chosen = [several.group.images, pictures.blank, several.group.images[::-1]]
    expected = []
    for images in chosen:
        group = several.group.__class__(several.group.key, several.group.task, images)
        logp = policy().score(policy().encode([group]), several.tokens, several.mask)
        expected.append(logp.double().mean())
    torch.testing.assert_close(pictures.scores(chosen), torch.stack(expected), atol=1e-6, rtol=0)
    torch.testing.assert_close(ends_of(pictures), torch.stack(expected)[[1, 0]], atol=1e-6, rtol=0)
    assert expected[0] > expected[1]  # it is answered from the picture


def test_the_map_of_a_response_is_the_sum_of_its_labels_and_its_mass_what_is_positive():
    maps = ((torch.tensor([[1.0, -2.0]]),), (torch.tensor([[1.0, 1.0]]),))
    images = (torch.zeros(1, 4, 3),)
    # 2, -1 on cells of two pixels: pixel centres at -1/4, 1/4, 3/4, 5/4 between them
    assert on_pixels(maps, images)[0].tolist() == [[2.0, 1.25, -0.25, -1.0]]
    assert on_pixels(maps, images, positive=True)[0].tolist() == [[2.0, 1.5, 0.5, 0.0]]


@torch.no_grad()
def test_measures_are_those_of_the_metrics_over_the_regions_of_each_image(several):
    generator = torch.Generator().manual_seed(1)
    maps = (tuple(torch.randn(4, 4, generator=generator) for _ in several.group.images),)
    pictures, measures, regions = Pictures(several), Measures(), regions_of(several)
    ends = ends_of(pictures)
    measures.add(maps, pictures, regions, ends)
    found = measures.values()
    pairs = [
        (map[None], mask.any(0)[None])
        for map, mask in zip(on_pixels(maps, several.group.images, positive=True), several.group.masks, strict=True)
    ]
    for name, function in (("energy_pointing_game", energy_pointing_game), ("pointing_game", pointing_game)):
        expected = sum(function(map, mask).item() for map, mask in pairs) / len(pairs)
        assert found[name] == pytest.approx(expected, abs=1e-12)
    (picture,) = pictures.between(on_pixels(maps, several.group.images), (0.15,), "insertion")
    score = pictures.scores([picture])[0]
    assert found["insertion_15"] == pytest.approx(float(100 * (score - ends[0]) / (ends[1] - ends[0])), abs=1e-6)
    assert measures.curves().deletion[[0, -1]].tolist() == [100.0, 0.0]


@torch.no_grad()
def test_without_regions_there_is_no_pointing(one):
    pictures, measures = Pictures(one), Measures()
    measures.add(((torch.ones(4, 4),),), pictures, (), ends_of(pictures))
    assert {name for name in measures.values() if "pointing" in name} == set()
