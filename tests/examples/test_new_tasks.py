"""The tasks of new_answer.py and new_question.py, each from a folder of nothing but its file, its config and data."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer_folder import AnswerFolder
from lightning_sal.samples import ImageGroup, VisualPrompt
from lightning_sal.segmenters import SAM2Prompt
from lightning_sal.tasks import COUNTING, DETECTION, PERCEPTION, VQA, load_task
from lightning_sal.tiny.scenes import scene_group

FOLDER = Path(__file__).parents[2] / "examples"
# A SAM2 of random weights, small enough for a test
SMALL_SAM2 = {
    "image_size": 128,
    "sam2_overrides": {
        "model.image_encoder.trunk.embed_dim": 16,
        "model.image_encoder.trunk.num_heads": 1,
        "model.image_encoder.trunk.stages": [1, 1, 2, 1],
        "model.image_encoder.trunk.global_att_blocks": [3],
        "model.image_encoder.neck.backbone_channel_list": [128, 64, 32, 16],
        "model.image_encoder.neck.d_model": 64,
        "model.image_encoder.neck.position_encoding.num_pos_feats": 64,
    },
}
SEGMENTER = {"class_path": "lightning_sal.segmenters.SAM2Prompt", "init_args": SMALL_SAM2}
OWN_SEGMENTER = f"""
from lightning_sal.segmenters import SAM2Prompt


def small():
    return SAM2Prompt(**{SMALL_SAM2!r})
"""


def load(name):
    return load_task(f"{FOLDER / name}")


# What the tasks themselves say


def test_boxes_are_read_and_written():
    task = load("new_answer.py")
    text = "<think>two</think><answer>[[100, 200.5, 300, 400], [0, 0, 1000, 1000]]</answer>"
    answer = task.parse(text)
    assert answer.boxes == ((100, 200.5, 300, 400), (0, 0, 1000, 1000))
    assert (answer.format_reward, answer.reason, answer.reasoning) == (1, None, "two")
    assert task.parse(task.write("two", answer)) == answer
    assert answer.fields() == {"boxes_per_mille": [[100, 200.5, 300, 400], [0, 0, 1000, 1000]]}
    with pytest.raises(ValueError, match="no boxes response"):
        task.write("", type(answer)(()))


@pytest.mark.parametrize(
    ("body", "boxes", "reason"),
    [
        ("[[1, 2, 3, 4], [5, 6, 5, 9]]", ((1, 2, 3, 4),), "'[5, 6, 5, 9]' is not x0"),
        ("[[1, 2, 3, 1001]]", (), "is not x0"),
        ("[[1, 2, true, 4]]", (), "is not x0"),
        ("[[1, 2, 3, NaN]]", (), "is not x0"),
        ("[[1, 2, 3, 1e999]]", (), "is not x0"),
        ("[]", (), "no list of boxes"),
        ('{"a": 1}', (), "no list of boxes"),
        ("the left one", (), "not JSON"),
        ("[" * 100_000, (), "not JSON"),
        (f"[[{'9' * 10_000}, 2, 3, 4]]", (), "not JSON"),
    ],
    ids=range(10),
)
def test_a_faulty_box_costs_the_grammar_and_leaves_the_others(body, boxes, reason):
    answer = load("new_answer.py").parse(f"<think></think><answer>{body}</answer>")
    assert answer.boxes == boxes
    assert answer.format_reward == 0.5
    assert reason in answer.reason


@given(st.text() | st.text('<>/[]{},.0123456789enthikaswr "').map("<think></think><answer>{}</answer>".format))
def test_reading_never_raises(text):
    for name in ("new_answer.py", "new_question.py"):
        assert load(name).parse(text).format_reward in (0, 0.5, 1)


def test_boxes_become_prompts_in_pixels_of_the_image():
    task = load("new_answer.py")
    answer = task.parse("<think></think><answer>[[100, 200, 300, 400]]</answer>")
    assert task.prompts(answer, (50, 200)) == (VisualPrompt(box=(20, 10, 60, 20)),)  # x of 200 pixels, y of 50


def test_box_iou_by_hand():
    task = load("new_answer.py")
    mean_box_iou = sys.modules[type(task).__module__].mean_box_iou
    target = torch.tensor([[0.0, 0, 4, 4], [10, 10, 14, 14]])
    found = torch.tensor([[10.0, 10, 14, 12], [0, 0, 4, 4], [50, 50, 60, 60]])
    assert mean_box_iou(found, target) == pytest.approx((0.5 + 1 + 0) / 3)
    assert mean_box_iou(torch.zeros(0, 4), target) == 0
    assert mean_box_iou(torch.zeros(0, 4), torch.zeros(0, 4)) == 1


@pytest.mark.parametrize("annotated", [True, False], ids=["boxes", "masks"])
def test_boxes_are_measured_against_those_of_the_sample_or_of_its_masks(annotated):
    task = load("new_answer.py")
    mask = torch.zeros(1, 10, 20, dtype=torch.bool)
    mask[0, 2:6, 4:12] = True  # the box 4, 2, 12, 6
    boxes = (torch.tensor([[4.0, 2, 8, 6]]),) if annotated else None
    group = ImageGroup("a", "boxes", (torch.zeros(10, 20, 3, dtype=torch.uint8),), (mask,), boxes=boxes)
    answer = task.parse("<think></think><answer>[[200, 200, 600, 600]]</answer>")
    metrics = task.metrics()
    (row,) = task.update(metrics, group, answer, (mask,))
    assert row["box_iou"] == pytest.approx(0.5 if annotated else 1)
    assert row["iasm"] == pytest.approx(1, abs=1e-6)
    assert metrics["box_iou"].compute() == row["box_iou"]
    assert set(row) <= set(task.measures())


def test_an_answer_is_compared_with_the_reference():
    task = load("new_question.py")
    group = ImageGroup(
        "a", "how_many", (torch.zeros(2, 2, 3, dtype=torch.uint8),), question="How many?", reference="Two "
    )
    said = [task.parse(f"<think></think><answer>{words}</answer>") for words in (" two", "2", "")]
    assert [task.agrees(answer, group) for answer in said] == [True, False, False]
    assert task.correctness([group] * 3, said, [None] * 3) == [1, 0, 0]
    assert [answer.format_reward for answer in said] == [1, 1, 0.5]
    assert task.messages(group)[0].text.startswith("How many?\nAnswer by a number alone.")
    with pytest.raises(ValueError, match="a: how_many needs reference and this sample has none"):
        task.correctness([ImageGroup("a", "how_many", group.images)], said[:1], [None])


# From a folder of their own


@pytest.fixture
def scenes(project):
    """Images with a mask an object, and a JSONL of them for either task; no line has a response."""
    for name in ("new_answer.py", "new_answer.yaml", "new_question.py", "new_question.yaml"):
        shutil.copy(FOLDER / name, project)
    (project / "data").mkdir()
    lines = {"boxes": [], "how_many": []}
    for number in range(3):
        group = scene_group(7, "sis", number)
        Image.fromarray(group.images[0].numpy()).save(project / f"data/{number}.png")
        masks = [f"{number}_{i}.png" for i in range(len(group.masks[0]))]
        for name, mask in zip(masks, group.masks[0], strict=True):
            Image.fromarray(mask.numpy()).save(project / "data" / name)
        asked = {"question": "How many shapes stand out?", "reference": str(len(masks))}
        lines["boxes"].append({"task": "boxes", "images": [f"{number}.png"], "masks": masks})
        lines["how_many"].append({"task": "how_many", "images": [f"{number}.png"], **asked})
    for name, of_task in lines.items():
        (project / f"data/{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in of_task))
    for name in ("new_answer", "new_question"):  # the task's file lies beside its config here
        config = project / f"{name}.yaml"
        config.write_text(config.read_text().replace("examples/", ""))
    (project / "segmenter.yaml").write_text(json.dumps({"model": {"init_args": {"segmenter": SEGMENTER}}}))
    (project / "own.py").write_text(OWN_SEGMENTER)
    return project


def results_of(name):
    """Options of a test that writes its results to a folder."""
    init_args = json.dumps({"folder": f"runs/{name}", "name": "ours"})
    return [
        "--trainer.callbacks",
        f'[{{"class_path": "lightning_sal.callbacks.EvaluationResults", "init_args": {init_args}}}]',
    ]


def columns(table):
    return [cell.strip() for cell in table.splitlines()[0].split("|")[2:-1]]


def test_boxes_train_and_are_evaluated(lightning, scenes, capsys):
    configs = ("conf/real/sod.yaml", "new_answer.yaml", "segmenter.yaml")
    assert main(["check-data", "data/boxes.jsonl", "--task", "new_answer.py:BOXES"]) == 0
    logged = lightning("fit", *configs, options=["--trainer.callbacks", "[]"])
    assert len(logged["train/boxes/reward/mean"]) == len(logged["train/loss"]) == 2

    test = ["--data.init_args.test", "{new_answer.py:BOXES: data/boxes.jsonl}"]
    logged = lightning("test", *configs, options=[*test, *results_of("boxes")])
    capsys.readouterr()
    assert main(["table", "runs/boxes"]) == 0
    table = capsys.readouterr().out
    assert columns(table) == [f"boxes {heading}" for heading in ("AP50", "AP70", "IASM", "box IoU")]
    assert f"{logged['test/boxes/box_iou'][0]:.3f}" in table
    assert Path("runs/boxes/failures.html").is_file()


def test_questions_train_and_are_evaluated(lightning, scenes, capsys):
    configs = ("conf/real/sod.yaml", "new_question.yaml")
    assert main(["check-data", "data/how_many.jsonl", "--task", "new_question.py:HOW_MANY"]) == 0
    logged = lightning("fit", *configs, options=["--trainer.callbacks", "[]"])
    assert len(logged["train/how_many/reward/mean"]) == len(logged["train/loss"]) == 2

    test = ["--data.init_args.test", "{new_question.py:HOW_MANY: data/how_many.jsonl}"]
    logged = lightning("test", *configs, options=[*test, *results_of("how_many")])
    capsys.readouterr()
    assert main(["table", "runs/how_many"]) == 0
    table = capsys.readouterr().out
    assert columns(table) == ["how_many accuracy"]
    assert f"{logged['test/how_many/accuracy'][0]:.3f}" in table
    assert "How many" not in Path("runs/how_many/how_many.csv").read_text().splitlines()[0]

    assert main(["score", "--preds", "data", "--gt", "data", "--task", "new_question.py:HOW_MANY"]) == 1
    assert "the task how_many has no masks to score: use `lightning test`" in capsys.readouterr().err


def test_a_segmenter_that_takes_other_prompts_is_refused_at_the_start(lightning, scenes, capsys):
    test = ["--data.init_args.test", "{new_answer.py:BOXES: data/boxes.jsonl}"]
    words = ["--model.segmenter", "lightning_sal.segmenters.tiny.embedded_evf_sam2"]
    with pytest.raises(AssertionError):
        lightning("test", "conf/real/sod.yaml", "new_answer.yaml", options=[*test, *words])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning: error")]
    assert "the task boxes asks by VisualPrompt and the segmenter EVFSAM2 takes str: give one that fits" in line
    words = ["--segmenter", "lightning_sal.segmenters.tiny:embedded_evf_sam2"]
    assert main(["segment", "data/0.png", "--task", "new_answer.py:BOXES", *words]) == 1
    assert "the task boxes asks by VisualPrompt" in capsys.readouterr().err


def test_masks_of_boxes_are_scored(scenes, capsys):
    """A folder of colour-coded instances, as any method writes them."""
    (scenes / "preds").mkdir()
    for number in range(3):
        masks = scene_group(7, "sis", number).masks[0]
        numbered = (masks * torch.arange(1, len(masks) + 1)[:, None, None]).amax(0).byte()
        image = Image.fromarray(numbered.numpy())
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0, 0, 255, 255])
        image.save(scenes / f"preds/{number}.png")
    score = ["score", "--preds", "preds", "--gt", "data/boxes.jsonl", "--task", "new_answer.py:BOXES"]
    assert main(score) == 0
    summary = json.loads(Path("runs/score/preds/boxes/summary.json").read_text())
    assert summary["metrics"]["boxes"]["iasm"] == pytest.approx(1, abs=1e-6)
    assert summary["metrics"]["boxes"]["ap50"] == 1
    assert "box_iou" not in summary["metrics"]["boxes"]  # masks alone have no boxes


def test_photographs_are_answered(scenes, capsys):
    segment = ["segment", "data/0.png", "data/1.png", "--max-new-tokens", "8"]
    boxes = ["--task", "new_answer.py:BOXES", "--segmenter", "own.py:small", "--out", "runs/boxes"]
    assert main([*segment, *boxes]) == 0
    lines = [json.loads(line) for line in Path("runs/boxes/predictions.jsonl").read_text().splitlines()]
    assert [line["task"] for line in lines] == ["boxes"] * 2
    assert all("boxes_per_mille" in line and Path("runs/boxes", line["overlays"][0]).is_file() for line in lines)

    asked = ["--task", "new_question.py:HOW_MANY", "--question", "How many?", "--out", "runs/how_many"]
    assert main([*segment, *asked]) == 0
    lines = [json.loads(line) for line in Path("runs/how_many/predictions.jsonl").read_text().splitlines()]
    assert [(line["task"], line["masks"], line["overlays"]) for line in lines] == [("how_many", [[]], [])] * 2
    assert "how_many" in Path("runs/how_many/index.html").read_text()


@pytest.mark.parametrize(
    ("name", "words"), [("new_answer.py", "[[100, 200, 300, 400]]"), ("new_question.py", "5 red ones")]
)
def test_answers_are_shown(tmp_path, name, words):
    task = load(name)
    image = torch.zeros(10, 20, 3, dtype=torch.uint8)
    group = ImageGroup("a.png", task.name, (image,), paths=("a.png",))
    text = f"<think>it is seen</think><answer>{words}</answer>"
    masks = (torch.ones(1, 10, 20, dtype=torch.bool),) if task.prompt_type else ()
    folder = AnswerFolder(tmp_path / "answers", {"task": task.name})
    folder.add(Prediction(group, text, task.parse(text), masks, 0.5, masks))
    page = folder.finish([]).read_text()
    assert ("100 200 300 400" if masks else "5 red ones") in page
    assert "it is seen" in page
    assert page.count('class="mask"') == page.count('class="expression"') == len(masks)  # what lights a mask has one
    assert (tmp_path / "answers/instances.json").exists() == bool(masks)


def test_a_page_offers_the_tasks_that_its_segmenter_can_serve(tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the page needs the extra demo")
    from lightning_sal.demo.page import build
    from lightning_sal.demo.uploads import Bounds
    from lightning_sal.demo.visitors import Visitors

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    boxes, how_many = load("new_answer.py"), load("new_question.py")

    def offered(segmenter):
        page = build(
            {"model": SimpleNamespace(segmenter=segmenter, unexplained=None, notice=None)},
            Bounds(20, 12, 25, 8),
            Visitors(),
        )
        (radio,) = [block for block in page.blocks.values() if getattr(block, "label", None) == "Task"]
        return radio.choices, radio.info

    own = [(task.title.capitalize(), task.name) for task in (VQA, PERCEPTION, DETECTION, COUNTING, boxes, how_many)]
    choices, told = offered(SAM2Prompt(**SMALL_SAM2))
    assert choices == own
    assert told == "Each photograph is taken by itself."
    choices, told = offered(None)  # nothing is known of its prompts
    assert [name for _, name in choices] == ["sod", "sis", "cosod", *(name for _, name in own)]
    assert told.endswith("but for co-salient object detection: all of them as one group.")
