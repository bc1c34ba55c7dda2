"""Scenes in which things are found: what is asked, what is true, and what annotated responses say."""

from collections import Counter

import numpy as np
import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.metrics.functional import boxes_to_mask
from lightning_sal.tasks import task_of
from lightning_sal.tiny.cells import cell_boxes, scenes_of_group
from lightning_sal.tiny.finding import FINDING, box_of, find_group, find_of, place_of, point_of, unlooked
from lightning_sal.tiny.perception import build_number_tokenizer
from lightning_sal.tiny.scenes import SIZE, outline

INDICES = range(60)


def fitting(find):
    """The objects of a scene that the words of a question name."""
    *_, last = words = find.text.split()
    if words[0] == "the":
        return [o for o in find.scene.objects if o.phrase == " ".join(words[1:])]
    return [o for o in find.scene.objects if last in (f"{o.shape}s", f"{o.shape}es")]


@pytest.mark.parametrize("task", FINDING)
def test_what_is_asked_for_is_what_the_words_name(task):
    for index in INDICES:
        find = find_of(3, task, index)
        assert list(find.targets) == fitting(find)
        assert len(find.targets) <= 3
        assert 3 <= len(find.scene.objects) <= 5
        assert len({o.phrase for o in find.scene.objects}) == len(find.scene.objects)


@pytest.mark.parametrize("task", FINDING)
def test_boxes_points_masks_and_numbers_agree(task):
    for index in INDICES:
        group, find = find_group(3, task, index), find_of(3, task, index)
        assert group.boxes is not None
        assert group.points is not None
        (boxes,), (points,) = group.boxes, group.points
        assert boxes.shape == (len(find.targets), 4)
        assert points.shape == (len(find.targets), 2)
        assert boxes.dtype == points.dtype == torch.float32
        for target, box, (x, y) in zip(find.targets, boxes, points.int().tolist(), strict=True):
            covered = boxes_to_mask(box[None], SIZE, SIZE)
            assert (covered | ~torch.from_numpy(target.mask)).all()
            x0, y0, x1, y1 = box.int().tolist()
            assert all(
                edge.any() for edge in (target.mask[y0], target.mask[y1], target.mask[:, x0], target.mask[:, x1])
            )
            assert target.mask[y, x]
        assert group.reference == (str(len(boxes)) if task == "counting" else None)
        if task == "perception":
            assert group.masks is not None
            (mask,) = group.masks
            union = np.logical_or.reduce([o.mask for o in find.targets], axis=0) if find.targets else np.zeros((1, 1))
            assert mask.shape == (1, SIZE, SIZE)
            assert (mask[0].numpy() == union).all()
        else:
            assert group.masks is None


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "cross", "ring"])
def test_the_point_lies_well_inside(shape):
    mask = outline(shape, 50, 40, 20)
    x, y = point_of(mask)
    assert mask[y - 1 : y + 2, x - 1 : x + 2].all()
    assert point_of(np.roll(mask, (7, -5), (0, 1))) == (x - 5, y + 7)


def test_a_box_holds_its_last_pixels():
    mask = np.zeros((9, 9), bool)
    mask[2:4, 5] = True
    assert box_of(mask) == (5, 2, 5, 3)
    assert point_of(mask) == (5, 2)


def test_places_in_words():
    assert [place_of(p) for p in ((0, 0), (56, 56), (111, 60), (50, 111))] == ["top left", "middle", "right", "bottom"]


def test_some_questions_have_no_target():
    shares = {}
    for task in FINDING:
        groups = [find_group(4, task, index, annotated=False) for index in range(300)]
        shares[task] = sum(len(group.boxes[0]) == 0 for group in groups) / 300
        kinds = Counter(group.question.split()[0] for group in groups)
        assert set(kinds) == {"perception": {"the", "all"}, "detection": {"all"}, "counting": {"how"}}[task]
    assert 0.13 < shares["perception"] < 0.23
    assert shares["detection"] == 0
    assert 0.1 < shares["counting"] < 0.2


@pytest.mark.parametrize("task", FINDING)
def test_responses_state_the_truth_where_no_mistake_is_made(task):
    looking = 0
    for index in INDICES:
        group = find_group(5, task, index)
        answer = task_of(group, "").parse(group.response)
        assert answer.reason is None
        assert answer.boxes == tuple(map(tuple, group.boxes[0].tolist()))
        assert answer.points == tuple(map(tuple, group.points[0].tolist()))
        assert f"Conclusion: {len(answer.boxes)}." in answer.reasoning
        looked = task_of(group, "look").parse(group.response).structure_ok
        looking += looked
        cut = unlooked(group.response)
        assert "look>" not in cut
        assert task_of(group, "").parse(cut).boxes == answer.boxes
        assert (cut != group.response) == looked
    assert 0.65 < looking / len(INDICES) < 0.95


def test_mistakes_are_well_formed_and_wrong():
    wrong = 0
    for index in range(200):
        group = find_group(6, "perception", index, mistakes=30)
        answer = task_of(group, "").parse(group.response)
        assert answer.reason is None
        wrong += answer.boxes != tuple(map(tuple, group.boxes[0].tolist()))
    assert 40 <= wrong <= 80


def test_a_group_is_a_pure_function_of_its_numbers():
    one, two = (find_group(7, "detection", 11, mistakes=50) for _ in range(2))
    assert (one.question, one.response, one.key) == (two.question, two.response, two.key)
    assert torch.equal(one.images[0], two.images[0])
    bare = find_group(7, "detection", 11, annotated=False)
    assert bare.response is None
    assert torch.equal(bare.boxes[0], one.boxes[0])
    assert find_group(7, "counting", 11).question != one.question


def test_a_dataset_draws_them_and_their_scenes_come_again_from_the_key():
    groups = [SceneGroups(1, {"perception": 1, "counting": 1, "sod": 1})[index] for index in range(40)]
    assert {group.task for group in groups} == {"perception", "counting", "sod"}
    for group in groups:
        assert (scenes_of_group(group)[0][0].image == group.images[0].numpy()).all()


def test_each_cell_has_the_box_of_the_object_that_fills_most_of_it():
    scene = find_of(8, "perception", 0).scene
    boxes = cell_boxes(scene, 4).reshape(4, 4, 4) * SIZE
    for o in scene.objects:
        x, y = point_of(o.mask)
        filled = np.array([p.mask[y // 28 * 28 :, x // 28 * 28 :][:28, :28].sum() for p in scene.objects])
        assert tuple(boxes[y // 28, x // 28]) == pytest.approx(box_of(scene.objects[filled.argmax()].mask))
    assert (boxes[boxes[..., 0] < 0] == -SIZE).all()


def test_numbers_are_tokens_and_every_text_comes_back():
    tokenizer = build_number_tokenizer()

    def pieces(text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        return [tokenizer.decode([token]) for token in ids]

    assert pieces("[12, 112, 7]")[1::2] == ["12", "112", "7"]
    assert "12" not in pieces("a12b 3.125 1234 bbox12")
    pieces('é 日本 [[1,2]]  , 7,8 <look>x</look>\n"bbox_2d"')
    for task in FINDING:
        for index in INDICES:
            group = find_group(9, task, index, mistakes=20)
            length = len(pieces(group.response))
            assert length <= 90
            assert len(pieces(group.question)) <= 4
    assert (
        len(pieces('[{"bbox_2d": [1, 2, 3, 4], "point_2d": [5, 6]}, {"bbox_2d": [1, 2, 3, 4], "point_2d": [5, 6]}]'))
        == 25
    )
