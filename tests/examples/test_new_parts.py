"""The examples of docs/extending.md, each by the config that stands beside it, as another project would run them."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.inference.responses import Response
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task, load_task
from lightning_sal.tiny.scenes import scene_group
from tests.modules.parts import POLICY, assert_advantages_need_no_confidence_of_others

FOLDER = Path(__file__).parents[2] / "examples"
QUICKSTART = "conf/quickstart.yaml"
COD = f"{FOLDER / 'new_task.py'}:COD"
EVALUATION = "[{class_path: lightning_sal.callbacks.EvaluationResults, init_args: {folder: runs/cod, name: ours}}]"


def test_new_reward_by_hand():
    image = torch.zeros(2, 2, 3, dtype=torch.uint8)
    group, task = ImageGroup("key", "sod", (image,)), get_task("sod")
    answers = ["<rg>red ring</rg>", "<rg>a</rg><rg>one two three</rg>", "<rg>[semantic] two words</rg>", ""]
    texts = [f"<think></think><answer>{answer}</answer>" for answer in answers]
    scores = import_module("new_reward").Brevity(words=2)([Response(group, t, task.parse(t)) for t in texts])
    assert scores.values.tolist() == [1, 0.5, 1, 0]
    assert scores.reasons == (None, "more than 2 words: one two three", None, None)


def test_new_reward_in_a_training(lightning):
    logged = lightning("fit", QUICKSTART, FOLDER / "new_reward.yaml")
    terms = zip(*(logged[f"train/reward/{name}"] for name in ("correctness", "format", "brevity")), strict=True)
    expected = [0.4 * correctness + 0.4 * form + 0.2 * brevity for correctness, form, brevity in terms]
    assert len(expected) == 2
    assert logged["train/reward/mean"] == pytest.approx(expected, abs=1e-6)


def test_a_function_as_a_reward_in_a_training(lightning):
    logged = lightning("fit", QUICKSTART, FOLDER / "function_reward.yaml")
    terms = zip(*(logged[f"train/reward/{name}"] for name in ("correctness", "format", "brief")), strict=True)
    expected = [0.4 * correctness + 0.4 * form + 0.2 * brief for correctness, form, brief in terms]
    assert logged["train/reward/mean"] == pytest.approx(expected, abs=1e-6)


def test_a_function_as_the_whole_reward(lightning):
    logged = lightning("fit", QUICKSTART, options=["--model.init_args.reward=function_reward.brief"])
    assert logged["train/reward/mean"] == pytest.approx(logged["train/reward/brief"])
    assert min(logged["train/reward/brief"]) > 0


def test_new_segmenter_by_hand():
    image = torch.full((4, 6, 3), 245, dtype=torch.uint8)
    image[:2, :2], image[2:, 3:] = torch.tensor([210, 40, 45]).byte(), torch.tensor([50, 70, 225]).byte()
    found, none = (
        import_module("new_segmenter")
        .ColourSegmenter()
        .segment([image, image], [["red square", "[semantic] blue bar", "a grey dog"], []])
    )
    assert found.dtype == torch.bool
    assert [mask.nonzero().tolist() for mask in found] == [
        [[y, x] for y in range(2) for x in range(2)],
        [[y, x] for y in range(2, 4) for x in range(3, 6)],
        [],
    ]
    assert none.shape == (0, 4, 6)


def test_new_segmenter_finds_the_shapes_of_scenes():
    segmenter, overlaps = import_module("new_segmenter").ColourSegmenter(), []
    for number in range(10):
        group = scene_group(3, "sis", number)
        expressions = get_task("sis").parse(group.response).expressions
        found, truth = (m.any(0) for m in (segmenter.segment(group.images, [expressions])[0], group.masks[0]))
        overlaps.append(float((found & truth).sum() / (found | truth).sum()))
    assert sum(overlaps) / len(overlaps) > 0.8


def test_new_segmenter_in_a_training(lightning):
    logged = lightning("fit", QUICKSTART, FOLDER / "new_segmenter.yaml")
    assert len(logged["train/reward/correctness"]) == 2
    assert max(logged["train/reward/correctness"]) > 0.3  # the early policy names most colours rightly


def test_new_algorithm_by_hand():
    module = import_module("new_algorithm").Reinforce(policy=POLICY, start=0.25)
    assert module.advantages(torch.tensor([1.0, 0.0]), torch.rand(2)).tolist() == [0.75, -0.25]
    assert_advantages_need_no_confidence_of_others(module)


def test_new_algorithm_in_a_training(lightning):
    logged = lightning("fit", QUICKSTART, FOLDER / "new_algorithm.yaml", options=["--trainer.max_steps=5"])
    names = ("train/reward/mean", "train/advantage/mean", "train/baseline")
    baseline, steps = 0.5, list(zip(*(logged[name] for name in names), strict=True))
    del steps[2]  # SFT, where the log repeats the step before
    assert len(set(steps)) == len(steps) == 4
    for reward, advantage, after in steps:
        assert advantage == pytest.approx(reward - baseline, abs=1e-6)
        baseline = 0.9 * baseline + 0.1 * reward
        assert after == pytest.approx(baseline, abs=1e-6)


@pytest.fixture
def camouflage(project):
    """A folder of photographs and masks as COD10K has them, and a JSONL of responses to them."""
    for name in ("Imgs", "GT"):
        (project / "COD" / name).mkdir(parents=True)
    lines = []
    for number in range(4):
        group = scene_group(7, "sod", number)
        image, mask = f"COD/Imgs/{number}.jpg", f"COD/GT/{number}.png"
        Image.fromarray(group.images[0].numpy()).save(image)
        Image.fromarray(group.masks[0][0].numpy()).save(mask)
        response = "<think>it has the colour of the ground</think><answer><rg>pale ring</rg></answer>"
        lines.append({"task": "cod", "images": [image], "masks": [mask], "response": response})
    (project / "cod.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_new_task_trains_and_is_evaluated(lightning, camouflage, capsys):
    configs = ("conf/real/sod.yaml", FOLDER / "new_task.yaml")
    folder = f"--data.init_args.train={{{COD}: COD}}"
    logged = lightning("fit", *configs, options=[folder, "--data.init_args.sft=cod.jsonl", "--trainer.max_steps=3"])
    assert [len(logged[f"train/{name}"]) for name in ("cod/reward/mean", "loss")] == [2, 3]  # two of RL, one of SFT
    assert logged["train/cod/reward/mean"] == logged["train/reward/mean"]
    assert not [name for name in logged if name.startswith(("train/sod", "train/sis", "train/cosod"))]

    logged = lightning("test", *configs, options=[folder, "--trainer.callbacks", EVALUATION])
    assert not [name for name in logged if name.startswith("test/sod")]
    capsys.readouterr()
    assert main(["table", "runs/cod"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")[2:-1]] == ["cod S", "cod E max", "cod F max", "cod MAE"]
    assert f"{logged['test/cod/s_measure'][0]:.3f}" in row


def test_new_task_has_a_grammar_of_its_own():
    cod = load_task(COD)
    assert get_task("cod") is cod
    assert cod.format_reward(cod.response("still as a stone", ["owl in the bark"])) == 1
    assert cod.format_reward("<think></think><answer><rg>[semantic] owl</rg></answer>") == 0.5


def test_new_task_predicts(camouflage):
    images = ["--data.images", "[COD/Imgs/0.jpg, COD/Imgs/1.jpg]"]
    data = ["--data.task", COD, *images]
    assert main(["predict", "--config", "conf/predict.yaml", *data, "--trainer.accelerator", "cpu"]) == 0
    lines = [json.loads(line) for line in Path("runs/predict/predictions.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["cod", "cod"]
    assert Image.open("runs/predict/1.png").size == Image.open("COD/Imgs/1.jpg").size
