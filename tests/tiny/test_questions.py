"""Questions about scenes: one object holds the answer, its box is known, and the reasoning comes in several styles."""

from collections import Counter

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy import PolicyConfig
from lightning_sal.policy.loading import load_processor
from lightning_sal.tasks import VQA, task_of
from lightning_sal.tiny.policy import build_tokenizer
from lightning_sal.tiny.questions import question_group, question_of
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

INDICES = range(60)


def fitting(question):
    """The objects of the scene that the question can mean, read from its words."""
    words = question.text.rstrip("?").split()
    return [o for o in question.scene.objects if {o.colour, o.shape} & set(words)]


def test_a_question_fits_one_object_and_has_one_right_answer():
    for index in INDICES:
        question = question_of(3, index)
        (target,) = fitting(question)
        assert question.reference == f"{target.colour} {target.shape}"
        assert target.shape not in question.text
        assert 3 <= len(question.scene.objects) <= 5
        assert len({o.colour for o in question.scene.objects}) == len(question.scene.objects)
        assert len({o.shape for o in question.scene.objects}) == len(question.scene.objects)


def test_the_box_is_the_extent_of_the_visible_pixels():
    for index in INDICES:
        group = question_group(3, index)
        (target,) = fitting(question_of(3, index))
        assert group.masks
        assert group.boxes
        (mask,), ((box,),) = group.masks[0], group.boxes
        assert torch.equal(mask, torch.from_numpy(target.mask))
        assert box.dtype == torch.float32
        x0, y0, x1, y1 = box.int().tolist()
        assert mask[y0 : y1 + 1, x0 : x1 + 1].sum() == mask.sum()
        for edge in (mask[y0, :], mask[y1, :], mask[:, x0], mask[:, x1]):
            assert edge.any()


def test_responses_end_with_the_right_answer_where_no_mistake_is_made():
    for index in INDICES:
        group = question_group(4, index)
        answer = task_of(group).parse(group.response)
        assert answer.reason is None
        assert answer.text == group.reference
        assert VQA.agrees(answer, group)


def test_the_reasoning_speaks_of_none_some_or_all_others_and_may_give_the_answer_away():
    told, given_away = Counter(), 0
    for index in range(90):
        question, group = question_of(5, index), question_group(5, index)
        *before, last = VQA.parse(group.response).reasoning.rstrip(".").split(". ")
        phrases = before[0].removeprefix("Scene: ").split(" and ") if before else []
        others = [o.phrase for o in question.scene.objects if o is not question.target]
        assert phrases == [phrase for phrase in others if phrase in phrases]  # from left to right
        assert last in (f"Conclusion: {question.target.colour}", f"Conclusion: {question.target.phrase}")
        told["all" if phrases == others else "some" if phrases else "none"] += 1
        given_away += last.endswith(question.target.shape)
    assert min(told.values()) > 12
    assert 30 <= given_away <= 60


def test_mistakes_are_wrong_answers_of_the_right_colour():
    wrong = 0
    for index in range(200):
        group = question_group(6, index, mistakes=15)
        answer = VQA.parse(group.response)
        assert answer.text.split()[0] == group.reference.split()[0]
        wrong += not VQA.agrees(answer, group)
    assert 15 <= wrong <= 47


def test_a_group_is_a_pure_function_of_its_numbers():
    one, two = question_group(7, 11, mistakes=50), question_group(7, 11, mistakes=50)
    assert (one.question, one.response, one.key) == (two.question, two.response, two.key)
    assert torch.equal(one.images[0], two.images[0])
    assert question_group(7, 12).key != one.key
    bare = question_group(7, 11, annotated=False)
    assert bare.response is None
    assert torch.equal(bare.images[0], one.images[0])
    assert (bare.question, bare.reference) == (one.question, one.reference)


def test_a_dataset_draws_questions_beside_the_other_tasks():
    groups = [SceneGroups(1, {"vqa": 1, "sod": 1})[index] for index in range(40)]
    assert {group.task for group in groups} == {"vqa", "sod"}
    assert all(group.reference and group.question for group in groups if group.task == "vqa")


@pytest.mark.parametrize("name", sorted(EMBEDDED_POLICIES.keys() - {"tiny-perception", "tiny-varied"}))
def test_the_tokenizer_is_the_one_of_the_embedded_weights(name):
    """It is learnt from scenes anew each time; what is added to the package must leave it as it was."""
    built = build_tokenizer()
    shipped = load_processor(str(EMBEDDED_POLICIES[name]), PolicyConfig(name)).tokenizer
    assert built.get_vocab() == shipped.get_vocab()
    for index in INDICES:
        text = question_group(8, index).response
        assert built(text).input_ids == shipped(text).input_ids
        assert len(shipped(text).input_ids) < 40
