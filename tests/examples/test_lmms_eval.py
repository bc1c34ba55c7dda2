"""The saliency tasks for lmms-eval: by hand, and by lmms-eval itself where it is installed."""

import importlib.util
import json
import math

import pytest
import torch
import yaml
from PIL import Image

from lightning_sal import metrics
from lightning_sal.tasks import get_task
from lightning_sal.tiny.scenes import scene_group
from tests.examples.conftest import FOLDER

HERE = FOLDER / "lmms_eval"
TASKS = {"sod": 4, "sis": 3, "cosod": 2}  # and how many samples
HALVES = """
import torch

class Halves:
    prompt_type = str

    def segment(self, images, prompts):
        return [torch.stack([half(image, word) for word in words]) if words else torch.zeros(0, *image.shape[:2]).bool()
                for image, words in zip(images, prompts, strict=True)]

def half(image, word):
    mask = torch.zeros(image.shape[:2], dtype=torch.bool)
    mask[:, : image.shape[1] // 2 if "left" in word else 0] = True
    mask[:, image.shape[1] // 2 if "right" in word else image.shape[1] :] = True
    return mask
"""
STRICT = "<think>They stand out.</think><answer>{}</answer>"


def config_of(task):
    """A task's YAML, `!function` read as the name of the function."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    own = yaml.load((HERE / f"saliency_{task}.yaml").read_text(), Loader)
    return yaml.load((HERE / own.pop("include")).read_text(), Loader) | own


@pytest.fixture
def utils():
    spec = importlib.util.spec_from_file_location("utils_of_lmms_eval", HERE / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scenes(project, monkeypatch):
    """Scenes of every task on disk, where the variables say; and the groups as they were drawn."""
    groups = {}
    for task, count in TASKS.items():
        groups[task] = [scene_group(3, task, index) for index in range(count)]
        lines = [line_of(project, f"{task}_{number}", group) for number, group in enumerate(groups[task])]
        (project / f"{task}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        monkeypatch.setenv(f"SALIENCY_{task.upper()}", str(project / f"{task}.jsonl"))
    (project / "halves.py").write_text(HALVES)
    monkeypatch.setenv("SALIENCY_SEGMENTER", f"{project / 'halves.py'}:Halves")
    return groups


def line_of(folder, name, group):
    images, masks = [], []
    for number, (image, truths) in enumerate(zip(group.images, group.masks, strict=True)):
        images.append(f"{name}_{number}.png")
        Image.fromarray(image.numpy()).save(folder / images[-1])
        for place, truth in enumerate(truths):
            masks.append(f"{name}_{number}_{place}_mask.png")
            Image.fromarray(truth.numpy()).save(folder / masks[-1])
    return {"task": group.task, "images": images, "masks": masks}


def halves(group, sides):
    """(N, H, W) masks an image, as the segmenter of these tests makes them."""
    found = []
    for image in group.images:
        height, width = image.shape[:2]
        masks = torch.zeros(len(sides), height, width, dtype=torch.bool)
        for mask, side in zip(masks, sides, strict=True):
            mask[:, slice(width // 2) if side == "left" else slice(width // 2, None)] = True
        found.append(masks)
    return found


def evaluated(utils, task, answers):
    """What lmms-eval makes of answers: each measure over the whole set."""
    [source] = map(json.loads, (HERE / f"{task}.jsonl").read_text().splitlines())
    samples = utils.listed(source["task"], source["data"])
    items = [utils.measured(sample, [answer]) for sample, answer in zip(samples, answers, strict=True)]
    json.dumps(items)  # as it writes them into its logs
    values = {"malformed": sum(item["malformed"] for item in items) / len(items)}
    for measure in [each["metric"] for each in config_of(task)["metric_list"][:-1]]:
        values[measure] = utils.over_all([item[measure] for item in items])
    return values, items


# What the files say


@pytest.mark.parametrize("task", TASKS)
def test_a_yaml_names_functions_that_are_there_and_the_measures_that_papers_report(utils, task):
    config = config_of(task)
    assert config["task"] == f"saliency_{task}"
    named = [value for value in config.values() if isinstance(value, str) and value.startswith("utils.")]
    named += [each["aggregation"] for each in config["metric_list"][:-1]]
    assert all(callable(getattr(utils, name.removeprefix("utils."))) for name in named)
    assert (HERE / config["dataset_kwargs"]["data_files"][config["test_split"]]).is_file()

    measures = {name: each for name, each in get_task(task).measures().items() if each.reported}
    *listed, malformed = config["metric_list"]
    assert [each["metric"] for each in listed] == list(measures)
    assert [each["higher_is_better"] for each in listed] == [not each.lower_is_better for each in measures.values()]
    assert malformed == {"metric": "malformed", "aggregation": "mean", "higher_is_better": False}


def test_the_question_and_the_images_are_those_of_our_policies(utils, scenes):
    samples = utils.listed("cosod", "$SALIENCY_COSOD")
    for sample, group in zip(samples, scenes["cosod"], strict=True):
        assert utils.question(sample) == get_task("cosod").messages(group)[0].text
        shown = utils.images(sample)
        assert [image.tobytes() for image in shown] == [image.numpy().tobytes() for image in group.images]


def test_a_variable_that_is_not_set_is_named(utils, monkeypatch):
    monkeypatch.delenv("SALIENCY_SOD", raising=False)
    with pytest.raises(
        ValueError, match=r"\$SALIENCY_SOD: set this variable to the folder, or JSONL, of the sod samples"
    ):
        utils.listed("sod", "$SALIENCY_SOD")


# Numbers


@pytest.mark.parametrize("task", ["sod", "cosod"])
def test_regions_are_measured_over_the_whole_set(utils, scenes, task):
    sides = ["left", "right"] * 2
    answers = [STRICT.format(f"<rg>[semantic] {side}</rg>") for side in sides[: TASKS[task]]]
    values, items = evaluated(utils, task, answers)

    pairs = [
        (mask[0], truth[0])
        for group, side in zip(scenes[task], sides, strict=False)
        for mask, truth in zip(halves(group, [side]), group.masks, strict=True)
    ]
    wrong = [(mask != truth).double().mean().item() for mask, truth in pairs]
    assert values["mae"] == pytest.approx(sum(wrong) / len(wrong))
    for name, metric in (
        ("s_measure", metrics.StructureMeasure()),
        ("e_max", metrics.EnhancedAlignmentMeasure()),
        ("f_max", metrics.FMeasure()),
    ):
        metric.update(*zip(*pairs, strict=True))
        value = metric.compute()
        assert values[name] == pytest.approx((value[name] if isinstance(value, dict) else value).item())
    assert values["malformed"] == 0
    images = len(scenes[task][0].images)
    assert items[0]["mae"]["score"] == pytest.approx(sum(wrong[:images]) / images)


def test_instances_are_measured_over_the_whole_set(utils, scenes):
    sides = [["left", "right"], ["right"], ["left"]]
    answers = [STRICT.format("".join(f"<ins>{side}</ins>" for side in each)) for each in sides]
    values, _ = evaluated(utils, "sis", answers)

    iasm, precision = metrics.InstanceAlignedStructureMeasure(), metrics.InstanceAveragePrecision()
    for group, each in zip(scenes["sis"], sides, strict=True):
        for metric in (iasm, precision):
            metric.update(halves(group, each)[0], group.masks[0])
    expected = {"iasm": iasm.compute()} | precision.compute()
    assert {name: values[name] for name in ("ap50", "ap70", "iasm")} == pytest.approx(
        {name: expected[name].item() for name in ("ap50", "ap70", "iasm")}
    )


def test_masks_are_read_leniently_and_the_format_strictly(utils, scenes):
    answers = [STRICT.format("<rg>left</rg>")] * 3
    strict, _ = evaluated(utils, "sod", [*answers, answers[0]])
    loose, _ = evaluated(utils, "sod", [*answers, "<answer><rg>left</rg></answer>, I think."])
    silent, _ = evaluated(utils, "sod", [*answers, ""])
    assert [each["malformed"] for each in (strict, loose, silent)] == [0, 0.25, 0.25]
    assert loose["s_measure"] == strict["s_measure"] != silent["s_measure"]
    assert silent["mae"] == pytest.approx(
        strict["mae"] + (scenes["sod"][3].masks[0].double().mean().item() - _wrong(scenes["sod"][3])) / 4
    )


def _wrong(group):
    return (halves(group, ["left"])[0] != group.masks[0]).double().mean().item()


# By lmms-eval


@pytest.mark.parametrize("chat", [False, True])
def test_lmms_eval_runs_the_tasks(scenes, monkeypatch, tmp_path, chat):
    api, evaluator, tasks = (
        pytest.importorskip(
            f"lmms_eval.{name}", reason="lmms-eval is not installed, which nothing of lightning-sal needs"
        )
        for name in ("api.model", "evaluator", "tasks")
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "hub"))
    asked = []

    class Annotated(api.lmms):
        """Says what is annotated, and nothing to the last sample of a task."""

        is_simple = not chat

        def generate_until(self, requests):
            return [self.answer(*request.args) for request in requests]

        def answer(self, context, *rest):
            *call, number, name, split = rest
            sample = self.task_dict[name][split][number]
            if chat:
                [message] = call[0](sample)
                *images, text = [part.get("url", part.get("text")) for part in message["content"]]
            else:
                text, images = context, call[1](sample)
            task = name.removeprefix("saliency_")
            asked.append((task, text, len(images)))
            return scenes[task][number].response if number < TASKS[task] - 1 else "I cannot say."

        def loglikelihood(self, requests): ...

        def generate_until_multi_round(self, requests): ...

    monkeypatch.setenv("SALIENCY_SEGMENTER", "tiny")
    manager = tasks.TaskManager(include_path=str(HERE), include_defaults=False)
    assert {f"saliency_{task}" for task in TASKS} <= set(manager.all_tasks)
    found = evaluator.simple_evaluate(
        Annotated(), tasks=["saliency"], task_manager=manager, bootstrap_iters=0, batch_size=1
    )

    for task, count in TASKS.items():
        values = found["results"][f"saliency_{task}"]
        assert values["malformed,none"] == pytest.approx(1 / count)
        wanted = [each["metric"] for each in config_of(task)["metric_list"]]
        assert all(math.isfinite(values[f"{name},none"]) for name in wanted)
        shown = [each for each in asked if each[0] == task]
        assert [each[2] for each in shown] == [len(group.images) for group in scenes[task]]
        assert {each[1].strip() for each in shown} == {get_task(task).instruction.strip()}
    assert found["results"]["saliency_sod"]["s_measure,none"] > 0.6  # of three good ones and an empty one
