"""Scenes that are spoken of in many ways: the same content, and a policy whose confidence lies between what wrong and right
answers are worth."""

import pytest
import torch

from lightning_sal.datamodules import ScenesDataModule
from lightning_sal.datasets.scenes import WORDED, SceneGroups
from lightning_sal.inference.responses import gather
from lightning_sal.objectives import token_confidence
from lightning_sal.policy import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.loading import load_processor
from lightning_sal.rewards import Reward
from lightning_sal.segmenters.tiny import embedded_evf_sam2
from lightning_sal.tasks import TASKS
from lightning_sal.tiny.policy import build_tokenizer
from lightning_sal.tiny.scenes import scene_group
from lightning_sal.tiny.weights import EMBEDDED_POLICIES


@pytest.mark.parametrize("task", WORDED)
def test_the_words_differ_and_the_answer_does_not(task):
    for index in range(20):
        plain = TASKS[task].parse(scene_group(3, task, index).response)
        told = [TASKS[task].parse(scene_group(3, task, index, wording="varied", telling=n).response) for n in range(6)]
        assert all(answer.reason is None and answer.expressions == plain.expressions for answer in told)
        assert len({answer.reasoning for answer in told}) > 3


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_the_reasoning_names_what_the_answer_does(task):
    """In any order, and wrongly where the answer is wrong."""
    for index in range(40):
        group = scene_group(5, task, index, wording="varied", mistakes=50)
        answer = TASKS[task].parse(group.response)
        assert all(expression in answer.reasoning for expression in answer.expressions)


def test_each_annotated_scene_is_told_in_many_ways_with_the_same_mistake():
    scenes = SceneGroups(1, {"sod": 1, "sis": 1}, size=30, mistakes=50, wording="varied", tellings=16)
    assert len(scenes) == 480
    for index in range(30):
        told = [scenes[index + 30 * number] for number in range(4)]
        assert all(group.images[0].equal(told[0].images[0]) and group.key == told[0].key for group in told)
        assert len({group.response for group in told}) > 1
        assert len({tuple(TASKS[group.task].parse(group.response).expressions) for group in told}) == 1


def test_the_datamodule_tells_annotated_scenes_in_many_ways_and_held_out_ones_once():
    data = ScenesDataModule(["sft"], annotated=10, val_size=12, wording="varied")
    data.setup("fit")
    assert len(data.training_datasets()["sft"]) == 160
    assert len(data.evaluation_dataset("val")) == 12


def test_a_task_with_one_wording_is_refused():
    with pytest.raises(ValueError, match="task vqa has one wording alone"):
        ScenesDataModule(tasks={"sod": 1, "vqa": 1}, wording="varied")
    ScenesDataModule(tasks={"sod": 1, "vqa": 0}, wording="varied")


def test_the_shipped_policy_has_the_tokenizer_that_is_learnt_from_varied_responses():
    shipped = load_processor(str(EMBEDDED_POLICIES["tiny-varied"]), PolicyConfig("tiny-varied")).tokenizer
    assert build_tokenizer("varied").get_vocab() == shipped.get_vocab()


def test_confidence_lies_between_the_rewards_of_wrong_and_right_answers():
    policy, tasks = FastPolicy(PolicyConfig("tiny-varied")), dict.fromkeys(WORDED, 1)
    groups = [SceneGroups(2_000_003, tasks, wording="varied")[index] for index in range(96)]
    generator = torch.Generator().manual_seed(0)
    rollout = policy.sample(policy.encode(groups), 56, generator=generator)
    reward = Reward()
    responses = gather(groups, rollout, embedded_evf_sam2(), reward.needs)
    rewards, confidence = reward(responses).total, token_confidence(rollout.logp, rollout.mask)
    right = torch.tensor([TASKS[r.group.task].agrees(r.answer, r.group) for r in responses])
    assert 0.75 < confidence.mean() < 0.88
    assert (rewards > confidence)[right].float().mean() > 0.9
    assert (rewards < confidence)[~right].float().mean() > 0.65
