"""The commands that the configs of perception benchmarks state: greedy, sampled, and by the annotation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_sal.cli import main
from lightning_sal.tasks import ObjectTask, get_task
from tests.cli_parts import parsed_alone

CONF = Path(__file__).parents[2] / "conf" / "eval"
NAMES = ("reasonseg", "refcoco", "grefcoco", "coconut", "coco_detection", "counting")
OPTIONS = re.compile(r"^#   \.\.\. (.*)$", re.MULTILINE)

pytestmark = pytest.mark.skipif(not CONF.is_dir(), reason="the configs are in the repository only")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_head_of_a_config_says_is_parsed(name, monkeypatch) -> None:
    configs = parsed_alone(monkeypatch)
    path = CONF / f"{name}.yaml"
    for options in ["", *OPTIONS.findall(path.read_text())]:
        assert main(["test", "--config", str(path), *options.split()]) == 0
    models = [config.model.init_args for config in configs]
    assert [model.evaluation_temperature for model in models[:2]] == [0, 1]
    assert [model.evaluation_sampler for model in models[:2]] == [None, None]
    assert [model.evaluation_sampler.class_path for model in models[2:]] == ["lightning_sal.samplers.Annotated"] * (
        name != "counting"
    )
    folders = {config.trainer.callbacks[0].init_args.folder for config in configs}
    assert len(folders) == len(configs)  # none is written over
    for model in models:
        assert model.policy.square == 840
    tasks = [
        get_task(each.task if hasattr(each, "task") else each) for each in configs[0].data.init_args.benchmarks.values()
    ]
    assert all(isinstance(task, ObjectTask) for task in tasks)
    wanted = any(task.prompt_type for task in tasks)
    assert (models[0].segmenter is not None) == wanted
