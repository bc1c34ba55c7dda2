"""Procedural scenes: the same everywhere, and built such that one wrong word costs."""

import hashlib

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.metrics.functional import structure_measure
from lightning_sal.tasks import TASKS as KNOWN
from lightning_sal.tiny.draw import Draw
from lightning_sal.tiny.scenes import SIZE, scene_group, scenes_of

TASKS = {name: KNOWN[name] for name in ("sod", "sis", "cosod")}


def test_pixels_are_a_pure_function_of_the_seed():
    """Digests of pixels and masks, made once: another machine, NumPy or order of calls must give the same."""
    digest = hashlib.sha256()
    for task in TASKS:
        for index in (0, 17):
            group = scene_group(5, task, index)
            for tensor in (*group.images, *group.masks):
                digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest() == "718528706b01c98ecaef6b01a48995b00fdc6b4eaf4a41bfc10eea42020520ae"


def test_draws_are_uniform_and_within_bounds():
    draw = Draw(1)
    values = torch.tensor([draw.between(3, 7) for _ in range(5000)])
    counts = torch.bincount(values, minlength=9)
    assert counts[:3].sum() == 0
    assert counts[8] == 0
    assert (counts[3:8] - 1000).abs().max() < 150


@pytest.mark.parametrize("task", TASKS)
def test_groups_are_well_formed(task):
    for index in range(40):
        group = scene_group(2, task, index, group_size=3)
        assert len(group.images) == len(group.masks) == (3 if task == "cosod" else 1)
        answer = TASKS[task].parse(group.response)
        assert answer.reason is None
        for image, mask in zip(group.images, group.masks, strict=True):
            assert image.shape == (SIZE, SIZE, 3)
            assert image.dtype == torch.uint8
            assert mask.dtype == torch.bool
            assert mask.any(2).any(1).all()
            assert len(mask) == (len(answer.expressions) if task == "sis" else 1)


def test_an_expression_names_one_object_and_distractors_share_one_word():
    for task in ("sod", "sis"):
        for index in range(60):
            (scene,), expressions = scenes_of(3, task, index)
            phrases = [o.phrase for o in scene.objects]
            assert len(set(phrases)) == len(phrases)
            assert expressions == [o.phrase for o in sorted(scene.salient, key=lambda o: o.x)]
            for pale in (o for o in scene.objects if not o.salient):
                assert any((pale.colour == o.colour) != (pale.shape == o.shape) for o in scene.salient)


def test_images_of_a_group_share_exactly_one_shape():
    for index in range(60):
        scenes, (expression,) = scenes_of(4, "cosod", index, 3)
        shapes = set.intersection(*({o.shape for o in scene.objects} for scene in scenes))
        assert expression == f"[semantic] {shapes.pop()}"
        assert not shapes


def test_objects_stay_visible_where_they_overlap():
    for index in range(60):
        (scene,), _ = scenes_of(6, "sis", index)
        assert torch.stack([torch.from_numpy(o.mask) for o in scene.objects]).sum(0).max() == 1
        assert min(o.mask.sum() for o in scene.objects) > 150


def test_a_wrong_word_costs_a_fifth_of_correctness():
    """What an answer with one wrong object earns, on scenes with one and with two salient regions."""
    losses = {1: [], 2: []}
    for index in range(120):
        (scene,), _ = scenes_of(7, "sod", index)
        truth = torch.stack([torch.from_numpy(o.mask) for o in scene.salient])
        pale = next(torch.from_numpy(o.mask) for o in scene.objects if not o.salient)
        wrong = torch.cat([truth[1:], pale[None]]).any(0)
        score = structure_measure(wrong[None], truth.any(0)[None])
        losses[len(truth)].append(1 - score.item())
    assert sum(losses[1]) / len(losses[1]) > 0.5
    assert sum(losses[2]) / len(losses[2]) > 0.3
    assert sorted(losses[1] + losses[2])[len(losses[1] + losses[2]) // 10] > 0.2


def test_mistakes_name_one_wrong_shape():
    right, wrong = SceneGroups(8, {"sis": 1}, size=200), SceneGroups(8, {"sis": 1}, size=200, mistakes=15)
    different = 0
    for index in range(200):
        a, b = (TASKS["sis"].parse(source[index].response).expressions for source in (right, wrong))
        differing = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
        assert len(differing) <= 1
        assert all(x.split()[0] == y.split()[0] for x, y in differing)
        different += len(differing)
    assert 15 <= different <= 47


def test_masks_alone_carry_no_response():
    assert SceneGroups(1, {"sod": 1}, annotated=False)[0].response is None


def test_no_task_at_all_is_refused():
    with pytest.raises(ValueError, match="weight"):
        SceneGroups(1, {"sod": 0})
