"""The folder that the commands of the pages run in: photographs, benchmarks, responses and a run, all of scenes."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow
import torch
from PIL import Image
from pyarrow import parquet

from lightning_sal.cli import main
from lightning_sal.datasets.coco_results import instance
from lightning_sal.evaluation.embeddings import EmbeddedResponses, text_hash, write_embeddings
from lightning_sal.tasks import TASKS
from lightning_sal.tiny.scenes import scene_group
from lightning_sal.tiny.weights import WEIGHTS
from tests.docs.pages import ROOT

# Folders of images and of masks, named as distributed.
SOD = {
    "DUTS-TR": ("DUTS-TR-Image", "DUTS-TR-Mask"),
    "ECSSD": ("images", "ground_truth_mask"),
    "DUT-OMRON": ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
    "PASCAL-S": ("Imgs", "Imgs"),
}
SIS = ("ILSO", "SIS10K", "SOC")
COSOD = ("CoCO-SEG", "CoSOD3k", "CoCA", "CoSal2015")
PATHS = {"data": "data", "policy": "tiny", "segmenter": str(WEIGHTS / "segmenter"), "runs": "runs"}
SAMPLES = 4  # of each dataset
SEED = 11
SERVER = "http://localhost:8000/v1"  # of an OpenAI-compatible server, as pages name it


def make_workspace(folder: Path) -> None:
    """Everything but what a run makes."""
    for number, letter in enumerate("abc"):
        _save(folder / f"photographs/{letter}.jpg", scene_group(SEED, "sod", number).images[0])
    for number, name in enumerate(("cows", "cars")):
        for letter, image in zip("abc", scene_group(SEED, "cosod", number).images, strict=True):
            _save(folder / f"groups/{name}/{letter}.jpg", image)
    write_benchmarks(folder / "data")
    _write_questions(folder / "data")
    _write_coco(folder / "data")
    _write_counts(folder / "data")
    _write_perception(folder / "data")
    for number, name in enumerate(("sft", "isr")):
        _write_responses(folder / "data", name, first=100 * (number + 1))
    for number, name in enumerate(("raw", "ranked")):
        _write_embeddings(folder / f"runs/{name}/version_0/embeddings", number)
    shutil.copytree(ROOT / "conf", folder / "conf")
    # As a user says it who has them; JSON is YAML.
    (folder / "conf/paths.yaml").write_text(json.dumps(PATHS))
    shutil.copytree(ROOT / "examples", folder / "examples")


def make_run() -> None:
    """In the workspace: a checkpoint of SFT with its adapters, and the policy that they make."""
    assert main(["fit", "--config", "conf/sft.yaml"]) == 0
    assert main(["export", "runs/sft/version_0/checkpoints/last.adapter", "--out", "model"]) == 0


def write_benchmarks(data: Path) -> None:
    for name, (images, masks) in SOD.items():
        for index in range(SAMPLES):
            group = scene_group(SEED, "sod", index)
            _save(data / name / images / f"{index:04}.jpg", group.images[0])
            _save(data / name / masks / f"{index:04}.png", 255 * group.masks[0][0].byte())
    for index in range(SAMPLES):  # maps of another method: the truth at half its size
        mask = scene_group(SEED, "sod", index).masks[0][0]
        _save(data.parent / f"maps/{index:04}.png", 255 * mask[::2, ::2].byte())
        for method, benchmark in product("ab", ("ECSSD", "PASCAL-S")):
            _save(data.parent / f"methods/{method}/{benchmark}/{index:04}.png", 255 * mask[::2, ::2].byte())
    for name in SIS:
        for index in range(SAMPLES):
            group = scene_group(SEED, "sis", index)
            codes = torch.zeros(*group.images[0].shape, dtype=torch.uint8)
            for number, mask in enumerate(group.masks[0], 1):
                codes[mask] = torch.tensor([80 * number, 0, 255 - 80 * number], dtype=torch.uint8)
            _save(data / name / f"image/{index:04}.jpg", group.images[0])
            _save(data / name / f"gt/{index:04}.png", codes)
    for name in COSOD:
        for index in range(2):
            group = scene_group(SEED, "cosod", index)
            for i, (image, masks) in enumerate(zip(group.images, group.masks or (), strict=True)):
                _save(data / name / f"image/group{index}/{i}.jpg", image)
                _save(data / name / f"binary/group{index}/{i}.png", 255 * masks[0].byte())


def _write_questions(data: Path) -> None:
    """Records of the form of Visual-CoT, with boxes in pixels."""
    lines = []
    for index in range(SAMPLES):
        group = scene_group(SEED, "sod", index)
        rows, columns = group.masks[0][0].any(1).nonzero().flatten(), group.masks[0][0].any(0).nonzero().flatten()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        _save(data / f"visual-cot/images/{index:04}.jpg", group.images[0])
        line = {
            "image": f"{index:04}.jpg",
            "question": "What is it?",
            "answer": "a thing",
            "bboxs": [list(map(int, box))],
        }
        lines.append(line)
    (data / "visual-cot/train.pixels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_coco(data: Path) -> None:
    """The instances of some scenes as COCO json, and in the panoptic form."""
    images, annotations, panoptic = [], [], []
    for index in range(SAMPLES):
        group = scene_group(SEED, "sis", index)
        name, segments = f"{index:012}", []
        codes = torch.zeros(group.images[0].shape, dtype=torch.uint8)
        for number, mask in enumerate(group.masks[0], 1):
            codes[mask, 0] = number
            segments.append({"id": number, "category_id": 1, "iscrowd": 0})
            annotations.append(instance(mask.numpy()) | {"id": len(annotations), "image_id": index, "category_id": 1})
        _save(data / f"coco/val2017/{name}.jpg", group.images[0])
        _save(data / f"coconut/panoptic_val2017/{name}.png", codes)
        images.append({"id": index, "file_name": f"{name}.jpg"})
        panoptic.append({"image_id": index, "file_name": f"{name}.png", "segments_info": segments})
    categories = [{"id": 1, "name": "shape"}, {"id": 2, "name": "kite"}]
    for file, listed in [("coco/annotations/instances_val2017", annotations), ("coconut/panoptic_val2017", panoptic)]:
        content = {"images": images, "annotations": listed, "categories": categories}
        (data / f"{file}.json").parent.mkdir(parents=True, exist_ok=True)
        (data / f"{file}.json").write_text(json.dumps(content))


def _write_counts(data: Path) -> None:
    """A table of PixMo-Count with its images beside it, and one of CountBench with them inside."""
    inside, rows = [], []
    for index in range(SAMPLES):
        group = scene_group(SEED, "sis", index)
        file = data / f"pixmo-count/images/{index}.jpg"
        _save(file, group.images[0])
        count = len(group.masks[0])
        rows.append({"image_url": f"https://example.org/{index}.jpg", "count": count, "label": "shapes"})
        content = {"bytes": file.read_bytes() if index else None, "path": None}
        inside.append({"image": content, "number": count, "question": "How many shapes are there?"})
    (data / "pixmo-count/validation.json").write_text(json.dumps(rows))
    parquet.write_table(pyarrow.Table.from_pylist(inside), data / "countbench.parquet")


def _write_perception(data: Path) -> None:
    """One scene in each form of perception data: VisionReasoner's, ReasonSeg, and references."""
    group = scene_group(SEED, "sod", 0)
    rows, columns = group.masks[0][0].any(1).nonzero().flatten(), group.masks[0][0].any(0).nonzero().flatten()
    x0, y0, x1, y1 = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    height, width = group.images[0].shape[:2]
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    for place in ("multi_object_7k_840/images", "ReasonSeg/val", "coco/train2014"):
        _save(data / place / "a.jpg", group.images[0])
    found = {"bbox_2d": [x0 * 840 / width, y0 * 840 / height, x1 * 840 / width, y1 * 840 / height]}
    problem = {"id": "1", "problem": "the thing", "image": "a.jpg", "solution": json.dumps([found])}
    (data / "multi_object_7k_840/train.json").write_text(json.dumps([problem]))
    shapes = [{"label": "target", "points": ring}]
    sentence = {"text": ["what stands out"], "is_sentence": True, "shapes": shapes}
    (data / "ReasonSeg/val/a.json").write_text(json.dumps(sentence))
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "annotations": [{"id": 7, "image_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [sum(ring, [])]}],
    }
    ref = {"ref_id": 1, "image_id": 1, "ann_id": 7, "split": "val", "sentences": [{"sent": "the thing"}]}
    for name, refs in (
        ("refcoco/refs(unc)", [ref]),
        ("grefcoco/grefs(unc)", [ref | {"ann_id": [7], "no_target": False}]),
    ):
        (data / name).parent.mkdir()
        (data / f"{name}.json").write_text(json.dumps(refs))
        (data / name).with_name("instances.json").write_text(json.dumps(coco))


def _write_responses(data: Path, name: str, first: int) -> None:
    lines = []
    words = (name for name, task in TASKS.items() if "masks" in task.needs and task.prompt_type is str)
    for task in words:  # of which there are scenes with responses
        for index in range(first, first + 2 * SAMPLES):
            group = scene_group(SEED, task, index)
            images = [f"{name}/{task}-{index}-{i}.jpg" for i in range(len(group.images))]
            files = []
            for i, (image, masks) in enumerate(zip(group.images, group.masks or (), strict=True)):
                _save(data / images[i], image)
                for j, mask in enumerate(masks):
                    files.append(f"{name}/{task}-{index}-{i}-{j}.png")
                    _save(data / files[-1], 255 * mask.byte())
            lines.append({"task": task, "images": images, "masks": files, "response": group.response})
    (data / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_embeddings(folder: Path, seed: int) -> None:
    """Those of a step of a run, as `EmbeddingSpread` leaves them."""
    folder.mkdir(parents=True)
    embeddings = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
    words = ("sod",) * 8, tuple("abcdefgh"), tuple(map(text_hash, "abcdefgh"))
    write_embeddings(folder / "embeddings-000000.npz", EmbeddedResponses(0, embeddings, torch.arange(8) / 8, *words))


def _save(path: Path, pixels: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(
        path, **({"quality": 95} if path.suffix == ".jpg" else {})
    )
