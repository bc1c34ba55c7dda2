import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.check_data import main
from lightning_sal.datasets import task_records
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.make import make_policy
from lightning_sal.tasks import get_task

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
SAID = "<think>a disc</think><answer><rg>the disc</rg></answer>"


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def pairs(root: Path, count: int = 4) -> None:
    for i in range(count):
        save(root / f"images/{i}.png", np.full((9, 12, 3), i, np.uint8))
        save(root / f"masks/{i}.png", np.full((9, 12), 255, np.uint8))


def cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:50])
    return str(path)


def test_a_sound_folder_passes(tmp_path, capsys):
    pairs(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 4 samples (sod), 4 images, no faults\n"


def test_every_fault_of_a_folder_is_named(tmp_path, capsys):
    pairs(tmp_path, 6)
    named = [cut(tmp_path / "images/0.png"), cut(tmp_path / "masks/0.png"), cut(tmp_path / "masks/1.png")]
    named += [str(tmp_path / "images/2.png"), str(tmp_path / "masks/3.png"), str(tmp_path / "masks/4.png")]
    (tmp_path / "masks/2.png").unlink()
    (tmp_path / "images/3.png").unlink()
    save(tmp_path / "masks/4.png", np.zeros((9, 30), np.uint8))
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    stray, *named = [named.pop(4), *named]
    assert lines[0] == f"{stray}: a mask without an image, left out"
    assert [line.split(": ")[0] for line in lines[1:]] == [*named, str(tmp_path)]
    assert lines[-1].endswith("5 samples (sod), 5 images, 6 faults")


def test_every_fault_of_a_jsonl_is_named_by_line(tmp_path, capsys):
    pairs(tmp_path)
    good = {"task": "sod", "images": ["images/0.png"], "masks": ["masks/0.png"], "response": SAID}
    cut(tmp_path / "images/1.png")
    lines = [
        good,
        good | {"images": ["images/2.png"], "response": "the disc"},
        good | {"images": ["images/1.png"]},
        good | {"masks": ["masks/none.png"], "response": SAID + SAID},
        good | {"task": "depth"},
    ]
    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n{")
    assert main([str(path)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in printed] == [f"{path}:{n}" for n in (2, 3, 4, 4, 5, 6)] + [str(path)]
    for line, reason in zip(
        printed, ["malformed response", "1.png", "none.png", "malformed response", "depth", "not JSON"], strict=False
    ):
        assert reason in line


def test_what_annotation_gets_wrong_is_named_by_line(tmp_path, capsys):
    """Duplicates by what the files hold, in any order of a group; instances against expressions; what has no masks."""
    pairs(tmp_path)
    (tmp_path / "copy.png").write_bytes((tmp_path / "images/0.png").read_bytes())
    codes = np.zeros((9, 12, 3), np.uint8)
    codes[:4, :4], codes[6:, 6:] = (0, 200, 0), (200, 0, 0)
    save(tmp_path / "two.png", codes)
    one, two, three = (f"<think>t</think><answer>{n * '<ins>x</ins>'}</answer>" for n in (1, 2, 3))
    response = "<think>t</think><answer><rg>[semantic] disc</rg></answer>"
    sod = {"task": "sod", "images": ["images/0.png"], "response": SAID}
    sis = {"task": "sis", "images": ["images/0.png"], "annotation": "two.png"}
    cosod = {"task": "cosod", "response": response}
    lines = [
        sod,
        sod | {"images": ["copy.png"]},
        sis | {"response": two},
        sis | {"images": ["images/1.png"], "response": one},
        sis | {"images": ["images/2.png"], "response": three},
        sis | {"images": ["images/3.png"], "response": "nothing"},
        cosod | {"images": ["images/1.png", "images/2.png"]},
        cosod | {"images": ["images/2.png", "images/1.png"]},
        {"task": "sis", "images": ["copy.png"], "masks": [], "response": two},
    ]
    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:2: the same task and images as {path}:1",
        f"{path}:4: 1 expressions for 2 instances",
        f"{path}:5: 3 expressions for 2 instances",
        f"{path}:6: malformed response: found 0 <think>, 0 </think>, 0 <answer>, 0 </answer> where one each of <think> "
        "</think> <answer> </answer> must stand",
        f"{path}:8: the same task and images as {path}:7",
        f"{path}:9: 2 expressions for 0 instances",
        f"{path}:9: the same task and images as {path}:3",
        f"{path}: 9 samples (cosod, sis, sod), 4 without masks, 11 images, 7 faults",
    ]


def test_the_task_is_told_from_the_folder(tmp_path, capsys):
    codes = np.zeros((9, 12, 3), np.uint8)
    save(tmp_path / "raw/image/1.png", codes)
    codes[:4, :4] = (0, 200, 0)
    save(tmp_path / "raw/gt/1.png", codes)
    save(tmp_path / "coco/imgs/1.png", codes)
    (tmp_path / "coco/train.json").write_text('{"images": [{"id": 1, "file_name": "1.png"}], "annotations": []}')
    for i in range(2):
        save(tmp_path / f"groups/image/cow/{i}.png", codes)
        save(tmp_path / f"groups/gt/cow/{i}.png", codes[:, :, 0])
    pairs(tmp_path / "flat")
    for folder, task in {"raw": "sis", "coco": "sis", "groups": "cosod", "flat": "sod"}.items():
        assert main([str(tmp_path / folder)]) == 0
        assert f"({task})" in capsys.readouterr().out
    assert main([str(tmp_path / "flat"), "--task", "sis"]) == 0
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.strip().endswith("fits the tasks sod, sis, cosod; say which with --task")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["nowhere.jsonl"], "no such file"),
        (["."], "no known layout; looked for sod: .* found an empty folder"),
        ([".", "--task", "depth"], "unknown task 'depth'"),
        ([".", "--task", "sod"], "no sod layout"),
    ],
)
def test_a_wrong_argument_gives_one_line(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(reason, line)


def test_whatever_is_no_file_or_of_another_format_is_named(tmp_path, capsys):
    pairs(tmp_path, 3)
    os.mkfifo(tmp_path / "images/4.png")
    (tmp_path / "images/5.CR2").write_bytes(b"II*\0")
    for name in "45":
        save(tmp_path / f"masks/{name}.png", np.full((9, 12), 255, np.uint8))
    for name in ("images/Thumbs.db", "images/._0.png", "masks/._0.png", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/images/4.png: a pipe, not a file",
        f"{tmp_path}/images/5.CR2: a raw photograph, which is not read: save it as JPEG or PNG",
        f"{tmp_path}: 5 samples (sod), 5 images, 2 faults",
    ]
    path = tmp_path / "sft.jsonl"
    path.write_text(json.dumps({"task": "sod", "images": ["images/4.png"], "response": SAID}))
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}:1: {tmp_path}/images/4.png: a pipe, not a file")


def test_an_instance_mask_as_jpeg_is_a_fault_with_its_number_of_colours(tmp_path, capsys):
    codes = np.zeros((40, 60, 3), np.uint8)
    codes[3:20, 5:30], codes[22:36, 8:50] = (200, 30, 0), (0, 90, 200)
    save(tmp_path / "image/1.jpg", codes)
    save(tmp_path / "gt/1.jpg", codes)
    colours = {colour for _, colour in Image.open(tmp_path / "gt/1.jpg").getcolors(2400) or ()} - {(0, 0, 0)}
    assert main([str(tmp_path), "--task", "sis"]) == 1
    assert capsys.readouterr().out.startswith(f"{tmp_path}/gt/1.jpg: {len(colours)} colours in a JPEG")


def test_help_needs_no_torch():
    code = (
        "import sys; from lightning_sal.commands.check_data import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real photographs lie in ../shared/data, which is absent")
@pytest.mark.parametrize(
    "folder", ["sod/SOD", "sis/COCO-salient", "sis/PennFudan-coloured", "cosod/VOC-coseg", "cosod/MSRC", "cosod"]
)
def test_the_real_folders_are_sound(folder, capsys):
    assert main([str(REAL / folder)]) == 0
    assert f"({folder.split('/')[0]})" in capsys.readouterr().out


def test_plain_masks_are_no_instances_and_a_warning_says_so(tmp_path, capsys):
    pairs(tmp_path)
    assert main([str(tmp_path), "--task", "sis"]) == 0
    warning, summary = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{tmp_path}: warning: all 4 masks are plain black and white")
    assert "--task sod" in warning
    assert summary.endswith("no faults")


def test_one_coloured_mask_makes_the_plain_ones_instances(tmp_path, capsys):
    pairs(tmp_path)
    coloured = np.zeros((9, 12, 3), np.uint8)
    coloured[:4, :, 0] = coloured[6:, :, 1] = 255
    save(tmp_path / "masks/0.png", coloured)
    assert main([str(tmp_path), "--task", "sis"]) == 0
    assert "warning" not in capsys.readouterr().out
    assert main([str(tmp_path), "--task", "sod"]) == 0
    warning, _ = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{tmp_path}: warning: 1 of 4 masks are in colour")
    assert "--task sis" in warning


# What a model would be shown

BEHIND = ["--config", "conf/eval/ecssd.yaml", "--config", "conf/eval/endpoint.yaml"]
POLICY = "--model.init_args.policy"


def test_requests_to_an_endpoint_are_counted_and_priced(tmp_path, capsys):
    pairs(tmp_path / "data")
    priced = [f"{POLICY}.input_price", "100", f"{POLICY}.output_price", "1000"]
    options = [
        f"{POLICY}.model",
        "m",
        *priced,
        f"{POLICY}.longest_side",
        "480",
        f"{POLICY}.cache",
        str(tmp_path / "kept"),
    ]
    assert main([str(tmp_path / "data"), *BEHIND, *options, "--model.init_args.max_new_tokens", "1000"]) == 0
    size, counts, last = capsys.readouterr().out.splitlines()
    text = len(get_task("sod").instruction.encode())
    assert "m at OpenAI's API: requests of up to 0.00" in size
    assert size.endswith(f"and {1200 + text + 32:,} tokens")
    assert "4 requests to send, 0 answers kept already" in counts
    typical, most = 4 * (800 + text // 4), 4 * (1200 + text + 32)
    assert f"cost ${typical / 1e4 + 1.6:.2f} to ${most / 1e4 + 4:.2f}" in counts
    assert last.endswith("4 samples (sod), 4 images, no faults")


def test_what_servers_refuse_is_a_fault(tmp_path, capsys, monkeypatch):
    pairs(tmp_path, 2)
    save(tmp_path / "images/1.png", np.zeros((10, 4000, 3), np.uint8))
    save(tmp_path / "masks/1.png", np.zeros((10, 4000), np.uint8))
    assert main([str(tmp_path), *BEHIND, f"{POLICY}.longest_side", "1000"]) == 1
    assert (
        "1: image 1 is sent as 1000 x 2 pixels, and many servers refuse more than 200 to 1" in capsys.readouterr().out
    )
    monkeypatch.setattr("lightning_sal.clients.request_check.MOST_BYTES", 500)
    assert main([str(tmp_path), *BEHIND]) == 1
    assert "a request of 0.0 MB, and Gemini's API takes 0.0005: lower policy.longest_side" in capsys.readouterr().out


def test_groups_are_asked_about_in_parts(tmp_path, capsys):
    for number in range(5):
        save(tmp_path / f"image/cup/{number}.jpg", np.full((20, 30, 3), 9 * number, np.uint8))
        save(tmp_path / f"gt/cup/{number}.png", np.full((20, 30), 255, np.uint8))
    options = ["--data.init_args.benchmarks", "{CoCA: cosod}", "--data.init_args.group_size", "3"]
    assert main([str(tmp_path), "--task", "cosod", *BEHIND, *options]) == 0
    assert "2 requests to send" in capsys.readouterr().out


def test_prompts_of_a_policy_are_as_long_as_it_makes_them(tmp_path, capsys):
    pairs(tmp_path, 2)
    save(tmp_path / "images/1.png", np.zeros((200, 400, 3), np.uint8))
    save(tmp_path / "masks/1.png", np.zeros((200, 400), np.uint8))
    groups = [record.read() for record in task_records(get_task("sod"), tmp_path)]
    long, short = make_policy(PolicyConfig("tiny")).encode(groups).lengths
    config = ["--config", "conf/eval/ecssd.yaml"]
    assert main([str(tmp_path), *config]) == 0
    assert f"prompts of tiny have {short:,} to {long:,} tokens, the longest that of 0" in capsys.readouterr().out
    assert main([str(tmp_path), *config, f"{POLICY}.max_prompt_tokens", str(long - 1)]) == 1
    assert f"0: a prompt of {long:,} tokens, and policy.max_prompt_tokens is {long - 1:,}" in capsys.readouterr().out


def test_options_without_a_config_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--colour", "red"])
    assert "unrecognized arguments: --colour red" in capsys.readouterr().err
