"""`lightning-sal explain` from the command line to the files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.explanations.methods import METHODS
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.tiny.scenes import scene_group

QUICK = ["--methods", "attribution", "rollout", "random", "--max-new-tokens", "64"]


@pytest.fixture(scope="module")
def policy():
    return FastPolicy(PolicyConfig("tiny")).eval()


@pytest.fixture(autouse=True)
def loaded(policy, monkeypatch):
    """The model is in memory already."""
    monkeypatch.setattr("lightning_sal.inference.predictor.load_policy", lambda *_, **__: policy)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two scenes with their masks, as a dataset of salient regions lies on disk."""
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        group = scene_group(9, "sod", number)
        for folder, pixels in (("images", group.images[0]), ("masks", group.masks[0][0].byte() * 255)):
            path = tmp_path / "data" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.numpy()).save(path)
    return tmp_path / "data"


def summary(folder="runs/explain"):
    return json.loads((Path(folder) / "summary.json").read_text())


def rows(name, folder="runs/explain"):
    with (Path(folder) / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_dataset_is_explained_by_maps_pictures_and_tables(data, policy, capsys):
    assert main(["explain", "data", *QUICK]) == 0
    out = capsys.readouterr().out
    masks = [np.array(Image.open(data / "masks" / f"{n}.png")) > 0 for n in range(2)]
    share = np.mean([mask.mean() for mask in masks])
    assert f"2 of 2 responses explained, whose regions cover {share:.1%} of the pictures: runs/explain" in out
    assert out.startswith((Path("runs/explain") / "table.md").read_text())

    written = [json.loads(line) for line in Path("runs/explain/responses.jsonl").read_text().splitlines()]
    assert [line["images"] for line in written] == [["data/images/0.png"], ["data/images/1.png"]]
    for line in written:
        maps = np.load(f"runs/explain/maps/{line['number']:04}.npz")
        assert set(maps) == {
            f"{m}.{n}.0" for m in ("attribution", "rollout", "random") for n in range(len(line["labels"]))
        }
        assert all(maps[name].shape == (4, 4) for name in maps)
        assert all(label in line["response"] for label in line["labels"])
        assert Image.open(f"runs/explain/overlays/{line['number']:04}.png").width > 224

    means = summary()["methods"]
    own = rows("measures.csv")
    for method, values in means.items():
        for name in ("energy_pointing_game", "pointing_game", "deletion_5", "insertion_auc"):
            mean = np.mean([float(row[name]) for row in own if row["method"] == method])
            assert values[name] == pytest.approx(mean, abs=1e-9)
    energy = {(row["response"], row["method"]): float(row["energy_pointing_game"]) for row in own}
    for number, mask in enumerate(masks, 1):
        maps = np.load(f"runs/explain/maps/{number:04}.npz")
        total = sum(torch.from_numpy(maps[name]) for name in maps if name.startswith("attribution."))
        large = torch.nn.functional.interpolate(total.clamp(min=0).double()[None, None], mask.shape, mode="bilinear")[
            0, 0
        ]
        assert energy[str(number), "attribution"] == pytest.approx(
            float(large[torch.from_numpy(mask)].sum() / large.sum())
        )

    curves = [row for row in rows("curves.csv") if row["method"] == "rollout"]
    assert (curves[0]["deletion"], curves[0]["insertion"], curves[-1]["share"]) == ("100.0", "0.0", "1.0")
    at = {float(row["share"]): row for row in curves}
    assert float(at[0.15]["deletion"]) == pytest.approx(means["rollout"]["deletion_15"])


def test_a_folder_that_holds_something_is_refused(data, capsys):
    Path("runs/explain").mkdir(parents=True)
    Path("runs/explain/notes.txt").write_text("mine")
    assert main(["explain", "data", *QUICK]) == 1
    assert "runs/explain: is there already; name another folder by --out" in capsys.readouterr().err


def test_the_same_responses_are_explained_again_photographs_without_regions(data, capsys):
    lines = [
        {"task": "sod", "key": "0", "images": [f"data/images/{n}.png"], "response": text}
        for n, text in enumerate(
            (
                "<think>Conclusion: a red square.</think><answer><rg>red square</rg></answer>",
                "<answer><rg>red square</rg></answer>",
            )
        )
    ]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    photographs = [f"data/images/{n}.png" for n in range(2)]
    assert main(["explain", *photographs, "--responses", "mine.jsonl", *QUICK]) == 1
    captured = capsys.readouterr()
    assert "left out: data/images/1.png: nothing to explain: " in captured.err
    assert "1 of 2 responses explained: runs/explain" in captured.out
    assert summary()["responses"] == 1
    assert "pointing_game" not in summary()["methods"]["attribution"]
    (line,) = map(json.loads, Path("runs/explain/responses.jsonl").read_text().splitlines())
    assert (line["response"], line["labels"]) == (lines[0]["response"], ["red square"])
    # what was written is read again, and gives the same
    assert main(["explain", photographs[0], "--responses", "runs/explain", "--out", "again", *QUICK]) == 0
    assert summary("again")["methods"] == summary()["methods"]
    assert main(["explain", photographs[1], "--responses", "runs/explain", "--out", "none", *QUICK]) == 1
    assert "there is no response to it among those that are given" in capsys.readouterr().err
    assert not Path("none").exists()


def test_scenes_are_explained_without_files_and_random_maps_by_the_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {}
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        argv = ["explain", "--scenes", "1", "--methods", "random", "--seed", seed, "--out", out]
        assert main(argv) == 0
        found[out] = Path(out, "measures.csv").read_text()
    assert found["a"] == found["b"] != found["c"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "give either PATH or --scenes N"),
        (["--scenes", "1", "data"], "give either PATH or --scenes N"),
        (["data", "--methods", "magic"], "unknown method 'magic'; known are attribution"),
        (["nowhere"], "nowhere: there is no such image file or folder"),
        (["data", "--task", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_explained_is_said_before_anything_is_loaded(data, capsys, argv, line):
    assert main(["explain", *argv]) == 2
    assert line in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{}", "mine.jsonl:1: `task`, `key`, `images` or `response` is missing"),
        ("not json", "mine.jsonl:1: "),
        (
            "".join(
                json.dumps({"task": "sod", "key": "k", "images": [], "response": text}) + "\n" for text in ("a", "b")
            ),
            "mine.jsonl:2: a second response to k: keep one",
        ),
    ],
)
def test_lists_that_hold_no_responses_are_one_line(data, capsys, text, line):
    Path("mine.jsonl").write_text(text)
    assert main(["explain", "data", "--responses", "mine.jsonl", *QUICK]) != 0
    assert line in capsys.readouterr().err


def test_every_method_has_a_name_of_its_own():
    assert [name for name, method in METHODS.items() if name != method.name] == []
    assert len({type(method).__name__ for method in METHODS.values()}) >= 9
