"""`lightning-sal convert` on files."""

import json

import pytest

from lightning_sal.cli import main

ONE = "<think>é\u2028</think><answer><rg>the disc</rg></answer>"
TWO = "<think>t</think><answer><ins>left disc</ins><ins>right disc</ins></answer>"
LINES = [
    {"task": "sod", "images": ["images/a.jpg"], "masks": ["masks/a.png"], "response": ONE},
    {"task": "sis", "images": ["/data/b.jpg"], "annotation": "masks/b.png", "response": TWO},
    {"task": "sis", "images": ["../c.jpg"], "annotation": [[[0, 0, 3, 0, 3, 2]]], "response": TWO},
]


def write(path, items):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_there_and_back_with_paths_that_hold_in_each_folder(tmp_path, capsys, suffix):
    source = write(tmp_path / "data/sft.jsonl", LINES)
    target = tmp_path / f"out/deep/chat{suffix}"
    assert main(["convert", source, str(target), "--to", "sharegpt"]) == 0
    text = target.read_text(encoding="utf-8")
    items = json.loads(text) if suffix == ".json" else read(target)
    assert [item["images"] for item in items] == [["../../data/images/a.jpg"], ["/data/b.jpg"], ["../../c.jpg"]]
    ours = [json.loads(item["lightning_sal"]) for item in items]
    assert ours[0]["masks"] == ["../../data/masks/a.png"]
    assert ours[1]["annotation"] == "../../data/masks/b.png"
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "dataset_info.json" in line]
    assert json.loads(told.partition("dataset_info.json: ")[2])["chat"]["file_name"] == f"chat{suffix}"
    assert main(["convert", str(target), str(tmp_path / "data/back.jsonl"), "--to", "jsonl"]) == 0
    assert read(tmp_path / "data/back.jsonl") == LINES
    assert sorted(file.name for file in target.parent.iterdir()) == [target.name]


def test_conversations_of_windows_and_of_other_tools(tmp_path, capsys):
    """A byte order mark before an array; backslashes of files that are there; addresses of files."""
    (tmp_path / "im").mkdir()
    (tmp_path / "im/a.jpg").touch()
    items = [
        {"messages": turns(ONE), "images": ["im\\a.jpg"]},
        {"messages": turns(ONE), "images": ["file:///data/b%20c.jpg"]},
    ]
    (tmp_path / "chat.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(items).encode())
    assert main(["convert", str(tmp_path / "chat.json"), str(tmp_path / "out/sft.jsonl"), "--to", "jsonl"]) == 0
    assert [line["images"] for line in read(tmp_path / "out/sft.jsonl")] == [["../im/a.jpg"], ["/data/b c.jpg"]]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([], "not an object"),
        ({"messages": {}, "images": ["a.jpg"]}, "is a list of turns"),
        ({"messages": [{"role": ["user"], "content": "x"}], "images": ["a.jpg"]}, "1 turns"),
        ({"messages": [{"role": "user", "content": ["x"]}], "images": ["a.jpg"]}, "a turn without a text"),
        ("@", "nested too deeply"),
    ],
)
def test_an_item_of_odd_types_is_named(tmp_path, capsys, item, reason):
    source = tmp_path / "chat.jsonl"
    source.write_text('{"a":' * 100_000 if item == "@" else '{"a": 1}\n' + json.dumps(item))
    assert main(["convert", str(source), str(tmp_path / "sft.jsonl"), "--to", "jsonl"]) == 1
    line = capsys.readouterr().err.splitlines()[-2]
    assert line.startswith(f"{source}:")
    assert reason in line


def turns(answer):
    return [{"role": "user", "content": "<image>What stands out?"}, {"role": "assistant", "content": answer}]


def test_what_cannot_be_converted_is_named_and_nothing_is_written_unless_told(tmp_path, capsys):
    good = {"messages": turns(ONE), "images": ["a.jpg"], "id": 7}
    source = write(tmp_path / "chat.jsonl", [good, good | {"images": []}, good | {"messages": turns("a disc")}])
    target = tmp_path / "sft.jsonl"
    assert main(["convert", source, str(target), "--to", "jsonl"]) == 1
    assert not target.exists()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{source}:2", f"{source}:3", source]
    assert "1 x <image> in the question and 0 images" in lines[0]
    assert "2 of 3 lines cannot be converted; --skip writes the others" in lines[2]
    assert main(["convert", source, str(target), "--to", "jsonl", "--skip"]) == 0
    assert read(target) == [{"task": "sod", "images": ["a.jpg"], "response": ONE}]
    told = capsys.readouterr()
    assert told.err.splitlines()[:2] == lines[:2]
    assert told.out.splitlines() == [
        f"{target}: 1 lines, 2 refused",
        "1 lines had `id`, which has no place there",
        "1 lines had a question in other words, which has no place there",
        "1 lines have no masks: they serve SFT of the policy, not RL, nor the segmenter",
    ]


def test_a_malformed_line_of_our_own_is_named(tmp_path, capsys):
    source = tmp_path / "sft.jsonl"
    source.write_text(json.dumps(LINES[0]) + '\n{"task": "sod"}\n{')
    assert main(["convert", str(source), str(tmp_path / "x.json"), "--to", "sharegpt"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines[:2]] == [
        [f"{source}:2", "`images` and `masks` are lists of paths, with at least one image"],
        [f"{source}:3", "not JSON"],
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.jsonl", "x.json", "--to", "sharegpt"], "none.jsonl: no such file"),
        (["a.jsonl", "a.jsonl", "--to", "sharegpt"], "a.jsonl: there is such a file already"),
        (["a.jsonl", "x.csv", "--to", "sharegpt"], "x.csv: name a file that ends in .json or .jsonl"),
        (["a.jsonl", "x.json", "--to", "jsonl"], "x.json: name a file that ends in .jsonl"),
        (["a.jsonl", "x.jsonl", "--to", "jsonl", "--task", "depth"], "unknown task 'depth'"),
        (["cut.json", "x.jsonl", "--to", "jsonl"], "cut.json:1: not JSON"),
    ],
)
def test_a_wrong_argument_gives_one_line(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", LINES)
    (tmp_path / "cut.json").write_text('[{"images" []}]')
    assert main(["convert", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lightning: error: {reason}")
