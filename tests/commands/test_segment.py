"""`lightning-sal segment` from the command line to the files."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.commands.segment import EXAMPLES
from lightning_sal.datasets.photographs import find_groups
from lightning_sal.inference.predictor import Predictor
from lightning_sal.paths import Paths
from lightning_sal.segmenters.base import Found
from lightning_sal.tasks import TASKS
from lightning_sal.tiny.scenes import scene_group

REAL = ["--model", Paths().policy, "--segmenter", Paths().segmenter]
SHIPPED = [task for task in TASKS if (EXAMPLES / task).is_dir()]


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load()


@pytest.fixture
def loaded(predictor, monkeypatch):
    """How often models were loaded; they are in memory already."""
    loads = []
    monkeypatch.setattr(Predictor, "load", lambda *given, **options: loads.append((given, options)) or predictor)
    return loads


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("photos/a.png", "photos/trip/a.png", "photos/trip/b.png")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene_group(9, "sod", number).images[0].numpy()).save(name)
    return tmp_path / "photos"


def lines(folder="runs/segment"):
    return [json.loads(line) for line in (Path(folder) / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("loaded")
def test_the_scenes_that_the_package_ships_are_answered_rightly(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["segment"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "8 of 8 answered: open runs/segment/index.html"
    assert "drawn" not in second  # they are the scenes that the model knows
    words = shlex.split(second.partition(": ")[2])
    assert words[words.index("lightning-sal") :] == [
        "lightning-sal",
        "segment",
        "FOLDER",
        *REAL,
        "--out",
        "runs/segment-2",
    ]
    assert (EXAMPLES / "sod").is_dir()
    found = lines()
    assert [line["task"] for line in found] == ["sod"] * 3 + ["sis"] * 3 + ["cosod"] * 2
    # They are held-out scenes, drawn with seed 2000003: the answers must be the annotated ones.
    drawn = {}
    for task in SHIPPED:
        for index in range(16):
            group = scene_group(2000003, task, index)
            drawn[task, tuple(image.numpy().tobytes() for image in group.images)] = group
    for line in found:
        images = tuple(np.array(Image.open(file)).tobytes() for file in line["images"])
        task = TASKS[line["task"]]
        assert task.agrees(task.parse(line["response"]), drawn[line["task"], images])
        assert list(task.parse(line["response"]).labels) == line["expressions"]
    page = Path("runs/segment/index.html").read_text()
    assert page.count("<article") == 8
    assert len(page) < 500_000
    assert len(json.loads(Path("runs/segment/instances.json").read_text())["images"]) == 3


def test_with_maps_the_gallery_says_where_each_word_came_from(photos, loaded, capsys, monkeypatch):
    monkeypatch.setattr("lightning_sal.pages.gallery.EXPLAINED_A_PAGE", 2)
    assert main(["segment", "photos/trip", "--maps"]) == 0
    assert main(["segment", "photos", "--maps"]) == 0
    pages = [Path("runs/segment", name).read_text() for name in ("index.html", "index-2.html")]
    assert [page.count("<details") for page in pages] == [2, 1]
    for page, line in zip("".join(pages).split("<article")[1:], lines(), strict=True):
        shown = re.findall(r'class="word"[^>]*>([^<]*)<', page)
        assert shown == re.findall(r"\w+", re.sub("<[^>]*>", " ", line["response"]))
    assert main(["segment", "photos"]) == 1
    assert "maps True (now None)" in capsys.readouterr().err


def test_a_second_call_goes_on_and_a_third_loads_nothing(photos, loaded, capsys):
    assert main(["segment", "photos/trip"]) == 0
    first = lines()
    assert main(["segment", "photos"]) == 0
    assert "2 of 3 are answered there already: runs/segment\n3 of 3 answered" in capsys.readouterr().out
    assert lines()[:2] == first
    assert [line["images"] for line in lines()] == [["photos/trip/a.png"], ["photos/trip/b.png"], ["photos/a.png"]]
    assert lines()[2]["masks"] == [["masks/a-2.png"]]
    assert main(["segment", "photos"]) == 0
    assert len(loaded) == 2
    assert Path("runs/segment/index.html").read_text().count("<article") == 3


def test_the_end_says_what_the_embedded_models_do_not_know_and_how_others_are_taken(
    photos, loaded, capsys, monkeypatch
):
    monkeypatch.setattr("lightning_sal.internals.hub.require_hub", lambda name: None)
    assert main(["segment", "photos/trip", "--task", "sis"]) == 0
    line, command = capsys.readouterr().out.splitlines()[1:]
    assert "drawn scenes only" in line
    assert shlex.split(command)[-8:] == ["--task", "sis", *REAL, "--out", "runs/segment-2"]
    assert main(["segment", "photos", *REAL, "--out", "runs/real"]) == 0
    assert "drawn" not in capsys.readouterr().out


def test_an_expression_without_a_mask_is_named(photos, predictor, capsys, monkeypatch):
    class Blind:
        def segment(self, images, prompts):
            return [
                torch.zeros(len(p), *image.shape[:2], dtype=torch.bool)
                for image, p in zip(images, prompts, strict=True)
            ]

    monkeypatch.setattr(Predictor, "load", lambda *_, **options: replace(predictor, segmenter=Blind()))
    assert main(["segment", "photos/a.png"]) == 0
    words = lines()[0]["expressions"]
    out = capsys.readouterr().out
    assert f"no mask found for {len(words)} expression" in out
    assert all(f'"{each}" in photos/a.png' in out for each in words[:3])


def test_presence_scores_are_kept_and_said_of_what_is_not_found(photos, predictor, capsys, monkeypatch):
    """The first expression is there for sure, every other one is not."""

    class Sure:
        def segment_with_presence(self, images, prompts):
            found = []
            for image, of_image in zip(images, prompts, strict=True):
                there = torch.arange(len(of_image)) == 0
                masks = there[:, None, None].expand(-1, *image.shape[:2]).clone()
                found.append(Found(masks, torch.where(there, 1.0, 0.125)))
            return found

    monkeypatch.setattr(Predictor, "load", lambda *_, **options: replace(predictor, segmenter=Sure()))
    assert main(["segment", "photos", "--task", "sis"]) == 0
    out = capsys.readouterr().out
    for line in lines():
        words = line["expressions"]
        assert line["presence"] == [[1.0, *[0.125] * (len(words) - 1)]]
        assert f'"{words[0]}" in {line["images"][0]}' not in out
    missing = [(each, line["images"][0]) for line in lines() for each in line["expressions"][1:]]
    assert missing
    for words, file in missing[:3]:
        assert f'"{words}" in {file} (presence 0.12)' in out
    assert "(presence 0.12)" in Path("runs/segment/index.html").read_text()


def test_answers_are_no_photographs(photos, loaded, capsys):
    assert main(["segment", "."]) == 0
    assert main(["segment", "."]) == 0
    assert "\n3 of 3 answered: open runs/segment/index.html\n" in capsys.readouterr().out


def test_bad_files_are_named_at_the_end_and_the_rest_is_done(photos, loaded, capsys):
    (photos / "text.png").write_text("no image")
    whole = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (20_000, 20_000)).save(photos / "huge.png")
    Image.new("RGB", (2, 900)).save(photos / "thin.png")  # the policy's processor refuses such an aspect ratio
    assert main(["segment", "photos", "--batch-size", "3"]) == 1
    out, err = capsys.readouterr()
    assert "3 of 7 answered" in out
    assert sorted(re.findall(r"^not answered: photos/(\w+)\.png: \S", err, re.MULTILINE)) == [
        "cut",
        "huge",
        "text",
        "thin",
    ]
    assert sorted(line["images"][0] for line in lines()) == ["photos/a.png", "photos/trip/a.png", "photos/trip/b.png"]
    page = Path("runs/segment/index.html").read_text()
    assert all(f"photos/{name}.png: " in page for name in ("cut", "huge", "text", "thin"))
    (photos / "text.png").write_bytes(whole)
    assert main(["segment", "photos"]) == 1
    assert "4 of 7 answered" in capsys.readouterr().out
    page = Path("runs/segment/index.html").read_text()
    assert page.count("Not answered") == 1
    assert "photos/text.png: " not in page


def test_a_folder_is_a_group(photos, loaded, capsys):
    assert main(["segment", "photos", "--task", "cosod"]) == 1
    assert "photos/a.png: cosod needs a group of at least 2 images, and 1 given" in capsys.readouterr().err
    assert [line["images"] for line in lines()] == [["photos/trip/a.png", "photos/trip/b.png"]]


def test_what_cannot_be_run_is_one_line_before_any_work(photos, loaded, capsys):
    (photos / "none").mkdir()
    for argv, message in (
        (["photos/none"], "photos/none: there is no image there"),
        (["gone"], "gone: there is no such image file or folder"),
        (["photos/*.gif"], "photos/*.gif: no file or folder fits this pattern"),
        (["photos", "--task", "vqa"], "vqa answers a question about each photograph: give --question"),
    ):
        assert main(["segment", *argv]) == 2
        assert capsys.readouterr().err.startswith(f"lightning: error: {message}")
    assert not Path("runs").exists()
    assert main(["segment", "photos/a.png"]) == 0
    assert main(["segment", "photos/a.png", "--model", "tiny-early"]) == 1
    assert "model tiny (now tiny-early)" in capsys.readouterr().err
    assert main(["segment", "photos/a.png", "--out", "photos"]) == 1
    assert "photos holds other things" in capsys.readouterr().err
    assert len(loaded) == 1


def test_options_reach_the_models(photos, loaded):
    options = (
        "--model m --segmenter s --device cpu --dtype bfloat16 --max-new-tokens 7 --max-pixels 9 --reading lenient"
    )
    assert main(["segment", "photos/a.png", *options.split()]) == 0
    (((model, segmenter), rest),) = loaded
    assert (model, segmenter) == ("m", "s")
    wanted = {"device": "cpu", "dtype": "bfloat16", "max_new_tokens": 7, "max_pixels": 9}
    assert rest == {**wanted, "reading": "lenient", "explained": False}


def test_every_shipped_file_is_in_a_group():
    shipped = {str(path) for path in EXAMPLES.rglob("*.png")}
    assert {
        file for task in SHIPPED for group in find_groups([str(EXAMPLES / task)], task) for file in group
    } == shipped
