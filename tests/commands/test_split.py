"""`lightning-sal split` on files, and that what it writes is read by all who shall read it."""

import csv
import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.datamodules import CoSODDataModule, ImageGroupsDataModule, SISDataModule
from lightning_sal.datasets import jsonl_records
from lightning_sal.datasets.jsonl import read_lines
from lightning_sal.samples import Phased
from lightning_sal.tiny.scenes import scene_group

COUNTS = {"sod": 12, "sis": 10, "cosod": 8}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder with 30 annotated scenes in sft.jsonl; two SOD lines show, by other names, an image of a CoSOD group."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    lines = []
    for task, count in COUNTS.items():
        for index in range(count):
            group = scene_group(3, task, index, group_size=2)
            line: dict[str, Any] = {"task": task, "images": [], "masks": [], "response": group.response}
            for k, (image, masks) in enumerate(zip(group.images, group.masks or (), strict=True)):
                line["images"].append(f"images/{task}{index}_{k}.png")
                Image.fromarray(image.numpy()).save(root / line["images"][-1])
                for number, mask in enumerate(masks):
                    line["masks"].append(f"masks/{task}{index}_{k}_{number}.png")
                    Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(root / line["masks"][-1])
            lines.append(line)
    for index in (0, 1):
        (root / f"images/sod{index}_0.png").write_bytes((root / "images/cosod0_1.png").read_bytes())
        (root / f"masks/sod{index}_0_0.png").write_bytes((root / "masks/cosod0_1_0.png").read_bytes())
    write(root / "sft.jsonl", lines)
    return root


def write(path: Path, lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def digests(path: Path) -> set[str]:
    shown = [path.parent / name for line in read_lines(path) for name in line.fields["images"]]
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in shown}


def test_no_image_is_in_two_files_and_every_line_is_in_one(scenes, tmp_path, capsys):
    out = tmp_path / "somewhere/else"
    assert main(["split", str(scenes / "sft.jsonl"), "--out", str(out), "--val", "0.1"]) == 0
    files = [out / f"{name}.jsonl" for name in ("sft", "rl", "isr", "val")]
    images = [digests(file) for file in files]
    assert sum(map(len, images)) == len(set().union(*images)) == len(digests(scenes / "sft.jsonl"))
    records = [record for file in files for record in jsonl_records(file)]
    assert [line for record in records for line in record.problems()] == []  # paths hold from the new folder
    given = sorted(line.fields["response"] for line in read_lines(scenes / "sft.jsonl"))
    assert sorted(record.response for record in records) == given
    told = capsys.readouterr().out
    assert "3 lines share images with others and stay together, in 1 groups of up to 3 lines" in told
    assert str(out) in told


def test_the_order_of_lines_has_no_part_in_it_and_the_seed_has(scenes, tmp_path):
    lines = [line.fields for line in read_lines(scenes / "sft.jsonl")]
    random.Random(0).shuffle(lines)
    shuffled = write(scenes / "shuffled.jsonl", lines)
    for name, source, seed in (("a", scenes / "sft.jsonl", "0"), ("b", shuffled, "0"), ("c", shuffled, "1")):
        assert main(["split", str(source), "--out", str(tmp_path / name), "--seed", seed]) == 0
    a, b, c = ({file.name: file.read_text() for file in (tmp_path / name).iterdir()} for name in "abc")
    assert set(a) == {"sft.jsonl", "rl.jsonl", "isr.jsonl"}  # and no val.jsonl, which would be empty
    assert a == b
    assert a != c


def test_the_table_says_what_was_asked_for_and_what_came(scenes, tmp_path, capsys):
    lines = [line.fields for line in read_lines(scenes / "sft.jsonl") if line.fields["task"] == "sis"]
    for line in lines[:8]:
        del line["masks"]
    source = write(scenes / "bare.jsonl", lines)
    assert (
        main(["split", str(source), "--out", str(tmp_path / "out"), "--rl", "5", "--isr", "1", "--sft", "sis=3"]) == 0
    )
    told = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert rows == [["sft", "sis", "3", "3", "3"], ["rl", "sis", "2", "5", "2"], ["isr", "sis", "1", "1", "1"]]
    assert "8 lines have no masks" in told
    assert "4 lines are in no file" in told


def test_nothing_is_overwritten_and_nothing_is_left_half_done(scenes, tmp_path, capsys, monkeypatch):
    source, out = str(scenes / "sft.jsonl"), tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    assert main(["split", source, "--out", str(out)]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["mine"]
    (out / "mine").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("lightning_sal.datasets.jsonl.write_lines", full)
        assert main(["split", source, "--out", str(out)]) == 1
    assert list(tmp_path.iterdir()) == [out]
    assert not any(out.iterdir())
    assert main(["split", source, "--out", str(out)]) == 0  # an empty folder may be there


@pytest.mark.parametrize(
    ("line", "arguments", "reason"),
    [
        ({"task": "sod"}, [], r"bad\.jsonl:2: `images` and .* \(1 such lines; .*check-data"),
        ({"task": "sod", "images": ["images/sod3_0.png"]}, [], r"bad\.jsonl:2: no `response`"),
        ({"task": "sod", "images": ["none.png"], "response": "x"}, [], r"bad\.jsonl:2: .*none\.png: no such file"),
        (
            {"task": "sod", "images": ["images/sod3_0.png"], "response": "x"},
            ["--rl", "3"],
            "sod: 3 lines are asked for",
        ),
        ({"task": "sod", "images": ["images/sod3_0.png"], "response": "x"}, ["--rl", "some"], "'some' is no size"),
    ],
)
def test_what_cannot_be_split_is_one_line(scenes, tmp_path, capsys, line, arguments, reason):
    good = {"task": "sod", "images": ["images/sod2_0.png"], "masks": ["masks/sod2_0_0.png"], "response": "x"}
    source = write(scenes / "bad.jsonl", [good, line])
    assert main(["split", str(source), "--out", str(tmp_path / "out"), *arguments]) == 1
    (message,) = capsys.readouterr().err.split("lightning: error: ")[1:]
    assert re.search(reason, message)
    assert not (tmp_path / "out").exists()


FIT = """\
seed_everything: 0
trainer:
  max_steps: 2
  accelerator: cpu
  log_every_n_steps: 1
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  val_check_interval: 2
  check_val_every_n_epoch: null
  logger: {{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {folder}, name: ""}}}}
  callbacks: {callbacks}
model: {{class_path: lightning_sal.modules.{module}, init_args: {model}}}
data: {{class_path: lightning_sal.datamodules.{data}, init_args: {files}}}
"""
POLICY = "{policy: {model: tiny-scratch, lora: {rank: 4}}, max_new_tokens: 8}"
INTERLEAVED = "[{class_path: lightning_sal.callbacks.InterleavedSFT, init_args: {rl_steps: 1, sft_steps: 1}}]"
SFT_FILES = "{{train: {0}/sft.jsonl, val: {0}/val.jsonl, batch_size: 3}}"
RL_FILES = "{{train: {{sod: {0}/rl.jsonl, sis: {0}/rl.jsonl, cosod: {0}/rl.jsonl}}, sft: {0}/isr.jsonl, batch_size: 3}}"


@pytest.fixture
def shown(monkeypatch):
    """(phase, photographs) of each batch that a module is handed."""
    batches = []
    count = ImageGroupsDataModule.on_after_batch_transfer

    def recorded(self, batch, index):
        phase, inner = batch if isinstance(batch, Phased) else ("", batch)
        batches.append((phase, {path for group in inner for path in group.paths}))
        return count(self, batch, index)

    monkeypatch.setattr(ImageGroupsDataModule, "on_after_batch_transfer", recorded)
    return batches


@pytest.mark.parametrize(
    ("module", "model", "callbacks", "data", "files", "phases"),
    [
        ("SFT", POLICY, "[]", "SFTDataModule", SFT_FILES, ["sft", "sft", "val"]),
        ("SegmenterFineTuning", "{}", "[]", "SFTDataModule", SFT_FILES, ["sft", "sft", "val"]),
        ("CGPO", POLICY, INTERLEAVED, "UnifiedDataModule", RL_FILES, ["rl", "isr"]),
    ],
    ids=["sft", "segmenter", "cgpo"],
)
def test_the_files_are_what_training_reads(scenes, tmp_path, shown, module, model, callbacks, data, files, phases):
    """SFT and the segmenter learn from sft.jsonl and validate on val.jsonl; RL reads rl.jsonl, and isr.jsonl between."""
    out = tmp_path / "split"
    assert main(["split", str(scenes / "sft.jsonl"), "--out", str(out), "--val", "0.1"]) == 0
    config = tmp_path / "a.yaml"
    parts = {"module": module, "model": model, "callbacks": callbacks, "data": data, "files": files.format(out)}
    config.write_text(FIT.format(folder=tmp_path, **parts))
    assert main(["fit", "--config", str(config)]) == 0
    assert len(shown) >= len(phases)
    assert [phase for phase, _ in shown if phase] == (["rl", "sft"] if module == "CGPO" else [])
    for name, (_, images) in zip(phases, shown, strict=False):
        listed = {str(out / image) for line in read_lines(out / f"{name}.jsonl") for image in line.fields["images"]}
        assert images <= listed
    (metrics,) = tmp_path.glob("version_0/metrics.csv")
    rows = list(csv.DictReader(metrics.open()))
    assert [float(row["train/loss"]) > 0 for row in rows if row["train/loss"]] == [True, True]
    scored = [name for row in rows for name, value in row.items() if re.fullmatch("val/.*s_measure", name) and value]
    assert bool(scored) == ("val" in phases)


def test_a_jsonl_in_place_of_a_folder_gives_the_lines_of_its_task(scenes):
    lines = [line.fields for line in read_lines(scenes / "sft.jsonl") if line.fields["task"] != "sis"]
    path = str(write(scenes / "mixed.jsonl", [*lines, {"task": "sod"}]))
    module = CoSODDataModule(train=path, val=path, group_size=2)
    module.setup("fit")
    assert [[group.task for group in batch] for batch in module.val_dataloader()] == [["cosod"]] * 8 + [[]]
    assert "at least one image" in list(module.val_dataloader())[-1].unreadable[0]
    with pytest.raises(ValueError, match=r"mixed\.jsonl: holds no line of the task sis"):
        SISDataModule(train=path).setup("fit")
