"""The embedded weights: small, safe to load, and as good as their card says."""

from pathlib import Path

import pytest
import torch

import lightning_sal
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.datasets.streams import EvaluationLoader
from lightning_sal.evaluation.comparison import evaluate, summary
from lightning_sal.modules import SFT
from lightning_sal.policy import PolicyConfig
from lightning_sal.policy.policy import Policy
from lightning_sal.tasks import VQA
from lightning_sal.tiny.policy import scratch_policy

WEIGHTS = Path(lightning_sal.__file__).parent / "tiny" / "weights"


MASKS, QUESTIONS = {"sod": 1, "sis": 1, "cosod": 1}, {"vqa": 1}


def held_out(size, tasks):
    return EvaluationLoader(SceneGroups(2_000_003, tasks, size=size), 48)


def test_the_weights_are_small_and_of_safe_formats():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}


@pytest.mark.parametrize(
    ("model", "tasks", "least", "most"),
    [("tiny-early", MASKS, 0.4, 0.8), ("tiny", MASKS, 0.8, 1.0), ("tiny-vqa", QUESTIONS, 0.85, 1.0)],
)
def test_policies_score_what_they_are_for(model, tasks, least, most):
    module = SFT(policy=PolicyConfig(model), max_new_tokens=56)
    module.configure_model()
    samples, predictions = evaluate(module, held_out(144, tasks))
    assert least <= summary(samples)["exact"] <= most
    assert sum(prediction.reason is not None for prediction in predictions) <= 3


def test_sampled_answers_to_questions_are_mediocre_and_differ_in_what_they_say_before():
    """What a group of responses can be told apart by."""
    policy = Policy(PolicyConfig("tiny-vqa"))
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


def test_the_scratch_policy_is_the_architecture_of_the_embedded_ones():
    scratch = {name: value.shape for name, value in scratch_policy()[0].state_dict().items()}
    embedded = {name: value.shape for name, value in Policy(PolicyConfig("tiny")).qwen.state_dict().items()}
    assert scratch == embedded


def test_right_masks_beat_those_of_wrong_words():
    """The segmenter tells an object from a distractor that shares one of its words."""
    from lightning_sal.segmenters.tiny import embedded_segmenter
    from lightning_sal.tiny.scenes import scenes_of

    scenes = [scenes_of(2_000_003, "sod", index)[0][0] for index in range(40)]
    images = [torch.from_numpy(scene.image) for scene in scenes]
    masks = embedded_segmenter().segment(images, [[o.phrase for o in scene.objects] for scene in scenes])
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
