"""The embedded weights: small, safe to load, and as good as their card says."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_sal
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.datasets.streams import EvaluationLoader
from lightning_sal.evaluation.comparison import evaluate, summary
from lightning_sal.modules import SFT
from lightning_sal.modules.prompt_pretraining import true_prompt
from lightning_sal.policy import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.loading import load_processor
from lightning_sal.rewards.perception import box_and_point
from lightning_sal.segmenters.tiny import EmbeddedSAM2Prompt
from lightning_sal.tasks import VQA, task_of
from lightning_sal.tasks.boxes import true_count
from lightning_sal.tiny.finding import find_group, find_of
from lightning_sal.tiny.perception import build_number_tokenizer
from lightning_sal.tiny.policy import scratch_policy
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

WEIGHTS = Path(lightning_sal.__file__).parent / "tiny" / "weights"


MASKS, QUESTIONS = {"sod": 1, "sis": 1, "cosod": 1}, {"vqa": 1}


def held_out(size, tasks):
    return EvaluationLoader(SceneGroups(2_000_003, tasks, size=size), 48)


def test_the_weights_are_small_and_of_safe_formats():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 33e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}


@pytest.mark.parametrize(
    ("model", "tasks", "least", "most"),
    [
        ("tiny-early", MASKS, 0.4, 0.8),
        ("tiny-varied", MASKS, 0.4, 0.8),
        ("tiny", MASKS, 0.8, 1.0),
        ("tiny-vqa", QUESTIONS, 0.85, 1.0),
    ],
)
def test_policies_score_what_they_are_for(model, tasks, least, most):
    module = SFT(policy=PolicyConfig(model), max_new_tokens=56)
    module.configure_model()
    samples, predictions = evaluate(module, held_out(144, tasks))
    assert least <= summary(samples)["exact"] <= most
    assert sum(prediction.reason is not None for prediction in predictions) <= 3


def test_sampled_answers_to_questions_are_mediocre_and_differ_in_what_they_say_before():
    """What a group of responses can be told apart by."""
    policy = FastPolicy(PolicyConfig("tiny-vqa"))
    groups = [SceneGroups(2_000_003, QUESTIONS)[index] for index in range(48)]
    torch.manual_seed(0)
    texts = policy.sample(policy.encode(groups), 48, responses=4).texts
    answers = [VQA.parse(text) for text in texts]
    right = [VQA.agrees(answer, groups[row // 4]) for row, answer in enumerate(answers)]
    assert 0.5 < sum(right) / len(right) < 0.85
    assert sum(answer.reason is not None for answer in answers) < 0.05 * len(answers)
    named = [len(answer.reasoning.split(" and ")) if "Scene" in answer.reasoning else 0 for answer in answers]
    for style in ({0}, {1}, {2, 3, 4}):
        assert sum(count in style for count in named) > 0.1 * len(named)


FIND = ("perception", "detection", "counting")


@pytest.mark.parametrize("look", [None, ""])
def test_the_policy_for_boxes_answers_in_the_format_and_is_mediocre(look):
    policy = FastPolicy(PolicyConfig("tiny-perception", look=look))
    groups = [SceneGroups(2_000_003, {task: 1})[index] for task in FIND for index in range(32)]
    texts = policy.sample(policy.encode(groups), 96, temperature=0).texts
    answers = [task_of(group, "").parse(text) for group, text in zip(groups, texts, strict=True)]
    assert sum(answer.reason is None for answer in answers) > 0.9 * len(answers)
    assert (sum("<look>" in answer.reasoning for answer in answers) > 0.8 * len(answers)) is (look is None)
    assert 0.5 < sum(len(a.boxes) == true_count(g) for a, g in zip(answers, groups, strict=True)) / len(answers) < 0.98
    ious = [
        box_and_point(answer, group.boxes[0].double().numpy(), group.points[0].double().numpy())[0]
        for answer, group in zip(answers, groups, strict=True)
        if len(group.boxes[0])
    ]
    assert 0.4 < sum(ious) / len(ious) < 0.9


def test_sampled_boxes_differ_in_how_well_they_fit():
    """What a group of responses can be told apart by."""
    policy = FastPolicy(PolicyConfig("tiny-perception"))
    groups = [group for index in range(40) if len((group := find_group(2_000_003, "detection", index)).boxes[0])]
    torch.manual_seed(0)
    texts = policy.sample(policy.encode(groups), 96, responses=4).texts
    values = []
    for row, text in enumerate(texts):
        group = groups[row // 4]
        answer = task_of(group, "").parse(text)
        values.append(box_and_point(answer, group.boxes[0].double().numpy(), group.points[0].double().numpy())[0])
    assert torch.tensor(values).view(-1, 4).std(1).mean() > 0.05


def test_true_boxes_and_points_become_the_masks_of_objects():
    segmenter = EmbeddedSAM2Prompt()
    scenes = [find_of(2_000_003, "perception", index).scene for index in range(24)]
    images = [torch.from_numpy(scene.image) for scene in scenes]
    found = segmenter.segment(images, [[true_prompt(o) for o in scene.objects] for scene in scenes])
    masks = [torch.from_numpy(np.stack([o.mask for o in scene.objects])) for scene in scenes]
    ious = [((a & b).sum((1, 2)) / (a | b).sum((1, 2))) for a, b in zip(found, masks, strict=True)]
    assert torch.cat(ious).mean() > 0.8


def test_the_policy_for_boxes_has_the_tokenizer_that_is_learnt_from_scenes():
    shipped = load_processor(str(EMBEDDED_POLICIES["tiny-perception"]), PolicyConfig("tiny-perception")).tokenizer
    assert build_number_tokenizer().get_vocab() == shipped.get_vocab()


def test_the_scratch_policy_is_the_architecture_of_the_embedded_ones():
    scratch = {name: value.shape for name, value in scratch_policy()[0].state_dict().items()}
    embedded = {name: value.shape for name, value in FastPolicy(PolicyConfig("tiny")).model.state_dict().items()}
    assert scratch == embedded


def test_right_masks_beat_those_of_wrong_words():
    """The segmenter tells an object from a distractor that shares one of its words."""
    from lightning_sal.segmenters.tiny import embedded_evf_sam2
    from lightning_sal.tiny.scenes import scenes_of

    scenes = [scenes_of(2_000_003, "sod", index)[0][0] for index in range(40)]
    images = [torch.from_numpy(scene.image) for scene in scenes]
    masks = embedded_evf_sam2().segment(images, [[o.phrase for o in scene.objects] for scene in scenes])
    right, wrong = [], []
    for scene, found in zip(scenes, masks, strict=True):
        for row, mask in enumerate(found):
            ious = [
                float((mask & torch.from_numpy(o.mask)).sum()) / float((mask | torch.from_numpy(o.mask)).sum())
                for o in scene.objects
            ]
            right.append(ious.pop(row))
            wrong += ious
    assert sum(right) / len(right) > 0.6
    assert sum(wrong) / len(wrong) < 0.25
