"""Damaged and odd lists by the hundred, from a seed: each is read, or refused by one line of bounded length."""

import copy
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lightning_sal.annotation.output import done_keys
from lightning_sal.commands.types import _read
from lightning_sal.datasets import jsonl_records
from lightning_sal.datasets.coco_results import instance
from lightning_sal.datasets.conversations import from_conversations, to_conversations
from lightning_sal.datasets.perception import LAYOUT as PERCEPTION
from lightning_sal.datasets.reasonseg import reasonseg_records
from lightning_sal.datasets.refs import References
from lightning_sal.datasets.sis import LAYOUT
from lightning_sal.datasets.splitting import read_lines_to_split, sample_of
from lightning_sal.evaluation.comparison import read_arms
from lightning_sal.evaluation.results import read_summary
from lightning_sal.pages.prediction_files import delete_listed
from lightning_sal.predictions.pairing import pair_up
from lightning_sal.tasks import SIS

DEEP, DEEPER = "@deep@", "@deeper@"  # stand for brackets by the hundred, which Python's own tools would not write
NESTED = {json.dumps(DEEP): "[" * 900 + "]" * 900, json.dumps(DEEPER): '{"a":' * 5000 + "1" + "}" * 5000}
ODD = [
    None, True, [], {}, "", "1", -1, 0, 3.5, 10**9, 60_000, 1e300, float("nan"), float("inf"), 10**400, "\ud800", "a\0b",
    "a\nb", "../../x", "C:\\x\\a.jpg", "/dev/zero", "images\\a.jpg", "a/" * 300, [[]], [{}], {"a": 1}, ["x"] * 100,
    "0" * 500, "P" * 500, [[1, 2, 3]], [[5] * 4], [10**9] * 2, DEEP, DEEPER,
]  # fmt: skip
BYTES = [b"\xff", b"[", b"{", b'"', b"\0", b",", b"\xef\xbb\xbf", b"\n", b"-", b"1e999"]
SAID, INSTANCE = "<think>t</think><answer><rg>x</rg></answer>", "<think>t</think><answer><ins>x</ins></answer>"
SQUARE = np.zeros((9, 12), bool)
SQUARE[2:5, 3:9] = True
SHAPES = [[[1, 1, 5, 1, 5, 5, 1, 5]], {"size": [9, 12], "counts": [10, 20, 78]}, instance(SQUARE)["segmentation"]]
COCO = {
    "images": [{"id": n, "file_name": f"{name}.jpg", "height": 9, "width": 12} for n, name in enumerate("ab")],
    "annotations": [
        {"id": n, "image_id": n % 2, "segmentation": shape, "iscrowd": 0, "score": 0.5}
        for n, shape in enumerate(SHAPES)
    ],
}
LINES = [
    {"task": "sod", "images": ["images/a.jpg"], "masks": ["images/a.png"], "response": SAID},
    {"task": "sis", "images": ["images/a.jpg"], "annotation": SHAPES, "response": INSTANCE},
    {"task": "cosod", "images": ["images/a.jpg", "images/b.jpg"], "response": SAID},
]
CHAT = [
    {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": SAID}], "images": ["a.jpg"]},
    {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": SAID}], "image": "a.jpg"},
]
PREDICTIONS = [
    {"task": "sis", "images": [f"images/{name}.jpg"], "masks": [[f"images/{name}.png"]], "overlays": ["o.png"]}
    for name in "ab"
]
ROLLOUTS = [{"step": 0, "rank": 0, "task": "sod", "key": "k", "reward": 0.5, "confidence": 0.5, "advantage": 0}]
ARMS = [{"arm": "a", "key": "k", "task": "sod", "exact": True, "correctness": 0.5, "reward": 0.5, "confidence": 0.5}]
FOUND = [{"bbox_2d": [84, 84, 630, 756], "point_2d": [210, 420]}]
PROBLEMS = [
    {
        "id": "1",
        "problem": "x",
        "image": "images/a.jpg",
        "solution": json.dumps(FOUND),
        "img_height": 9,
        "img_width": 12,
    },
    {"id": "2", "problem": "y", "image": "images/b.jpg", "solution": FOUND, "box_unit": 840},
]
REFS = [
    {
        "ref_id": n,
        "image_id": n % 2,
        "ann_id": ids,
        "split": "val",
        "sentences": [{"sent": "x"}],
        "no_target": ids == [-1],
    }
    for n, ids in enumerate([[0], [1], [-1], [0, 2]])
]
MUG = {
    "text": ["x", "y"],
    "is_sentence": True,
    "shapes": [{"label": label, "points": [[1, 1], [8, 1], [8, 7]]} for label in ("target", "ignore", "flag")],
}
SUMMARY = {"name": "x", "tasks": {"b": "sod"}, "metrics": {"b": {"mae": 0.1}}}


def read_coco(path):
    return [line for found in LAYOUT.candidates(path) for record in found.records() for line in record.problems()]


def read_jsonl(path):
    return [line for record in jsonl_records(path) for line in record.problems()]


def convert(read):
    return lambda path: [line.fault for line in read(path, path.parent / "elsewhere") if line.fault]


def read_split(path):
    return [sample_of(line).task for line in read_lines_to_split(path)]


def score(path):
    """Against a ground truth that is sound; predictions lie in a folder, results in a file."""
    preds = path if path.suffix == ".json" else path.parent
    found = pair_up(preds, path.parent / "truth/all.json", SIS, "x")
    return [str(read((9, 12))[0].shape) for read in found.readers.values()]


def read_perception(path):
    return [line for found in PERCEPTION.candidates(path) for record in found.records() for line in record.problems()]


def read_refs(path):
    """References, or the COCO json of sound ones."""
    other, content = ("instances.json", COCO) if path.name == "refs.json" else ("refs.json", REFS)
    (path.parent / other).write_text(json.dumps(content))
    lists = References(path.parent / "refs.json")
    return [line for split in lists.splits for record in lists.records(split) for line in record.problems()]


def read_sentences(path):
    return [
        record.read().question for record in reasonseg_records(path.parent) if record.key.partition(".")[0] == "a"
    ] and None


def read_folder(read):
    return lambda path: read(path.parent) and None


READERS = {
    "coco.json": (COCO, read_coco),
    "results.json": (COCO["annotations"], score),
    "a.jsonl": (LINES, read_jsonl),
    "b.jsonl": (LINES, read_split),
    "c.jsonl": (LINES, convert(to_conversations)),
    "chat.json": (CHAT, convert(from_conversations)),
    "chat.jsonl": (CHAT, convert(from_conversations)),
    "find.840.jsonl": (PROBLEMS, read_perception),
    "find.840.json": (PROBLEMS, read_perception),
    "refs.json": (REFS, read_refs),
    "instances.json": (COCO, read_refs),
    "truth/a.json": (MUG, read_sentences),
    "predictions.jsonl": (PREDICTIONS, score),
    "old.jsonl": (PREDICTIONS, lambda path: delete_listed(path)),
    "rollouts.jsonl": (ROLLOUTS, lambda path: list(_read(path)) and None),
    "samples.jsonl": (ARMS, lambda path: read_arms(path) and None),
    "sft.jsonl": (LINES, lambda path: done_keys(path) and None),
    "summary.json": (SUMMARY, read_folder(read_summary)),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of a value and of each that it holds."""
    yield path
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def mutated(value, rng: random.Random):
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if len(found := list(places(value))) == 1:
            break
        place = rng.choice(found[1:])
        key, parent = place[-1], value
        for step in place[:-1]:
            parent = parent[step]
        if rng.random() < 0.7:
            parent[key] = copy.deepcopy(rng.choice(ODD))
        elif isinstance(parent, list) and rng.random() < 0.5:
            parent.append(copy.deepcopy(parent[key]))
        else:
            del parent[key]
    return value


def written(value, suffix: str, rng: random.Random) -> bytes:
    lines = value if suffix == ".jsonl" and isinstance(value, list) else [value]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for mark, brackets in NESTED.items():
        text = text.replace(mark, brackets)
    content = bytearray(text.encode())
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        at = rng.randrange(len(content) + 1)
        if rng.random() < 0.2:
            del content[at:]
        else:
            content[at:at] = rng.choice(BYTES)
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
def test_whatever_a_list_holds_it_is_read_or_refused_by_one_line(save, tmp_path, name):
    sound, read = READERS[name]
    for letter in "ab":
        save(f"images/{letter}.jpg")
        save(f"images/{letter}.png", np.full((9, 12), 255, np.uint8))
        save(f"truth/{letter}.jpg")
    (tmp_path / "truth/all.json").write_text(json.dumps(COCO))
    path, rng = tmp_path / name, random.Random(name)
    logging.disable(logging.WARNING)
    outcomes = {"read": 0, "refused": 0}
    try:
        for _ in range(100):
            path.write_bytes(written(mutated(sound, rng), path.suffix, rng))
            try:
                lines = read(path) or []
                outcomes["read"] += 1
            except (ValueError, FileNotFoundError) as error:
                lines = [str(error)]
                outcomes["refused"] += 1
            assert all(len(line) < 2000 for line in lines)
    finally:
        logging.disable(logging.NOTSET)
    assert name == "old.jsonl" or min(outcomes.values()) > 0  # where what is none of ours is passed over
    assert (tmp_path / "images/a.jpg").is_file()
