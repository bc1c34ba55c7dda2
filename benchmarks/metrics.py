"""How fast the metrics are: ratios to PySODMetrics, torchmetrics and faster-coco-eval in one run, medians.

    uv run python benchmarks/metrics.py [--images 60] [--rounds 7]

Soft maps of 300 x 400 pixels, float32, their values rounded to 8 bits as in files. Each round times every contender on all
images, one after the other; the table shows the median over rounds. With a GPU it adds images per second at batch 64.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import py_sod_metrics
import torch
from faster_coco_eval import COCO, COCOeval_faster
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from lightning_sal.datasets.coco_results import instance
from lightning_sal.metrics import (
    EnhancedAlignmentMeasure,
    FMeasure,
    InstanceAveragePrecision,
    MeanAbsoluteError,
    SaliencySuite,
    StructureMeasure,
    WeightedFMeasure,
)

HEIGHT, WIDTH = 300, 400


def soft_maps(count: int) -> tuple[Tensor, Tensor]:
    """Blurred and noisy versions of random blobs, (N, H, W) float32 with 8-bit values, and the blobs, bool."""
    draw = np.random.default_rng(0)
    noise = np.stack([gaussian_filter(draw.normal(size=(HEIGHT, WIDTH)), 40) for _ in range(count)])
    target = noise > np.quantile(noise, 0.7, axis=(1, 2), keepdims=True)
    soft = np.stack([gaussian_filter(mask.astype(float), 8) for mask in target])
    levels = np.rint(255 * np.clip(soft + 0.05 * draw.normal(size=soft.shape), 0, 1))
    return torch.from_numpy(levels / 255).float(), torch.from_numpy(target)


def theirs(make: Callable[[], object], preds: np.ndarray, target: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        metric = make()
        for pred, mask in zip(preds, target, strict=True):
            metric.step(pred, mask, normalize=False)  # type: ignore[attr-defined]

    return run


def ours(make: Callable[[], object], preds: Tensor, target: Tensor, batch: int) -> Callable[[], None]:
    def run() -> None:
        metric = make()
        for part in zip(preds.split(batch), target.split(batch), strict=True):
            metric.update(*part)  # type: ignore[attr-defined]
        metric.compute()  # type: ignore[attr-defined]
        if preds.is_cuda:
            torch.cuda.synchronize()

    return run


def medians(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of each, the median over rounds in which all take their turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if round_:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def maps(images: int, rounds: int, batch: int) -> None:
    preds, target = soft_maps(images)
    arrays = preds.numpy(), target.numpy()
    pairs = {
        "S": (py_sod_metrics.Smeasure, StructureMeasure),
        "E": (py_sod_metrics.Emeasure, EnhancedAlignmentMeasure),
        "F": (py_sod_metrics.Fmeasure, FMeasure),
        "MAE": (py_sod_metrics.MAE, MeanAbsoluteError),
        "weighted F": (py_sod_metrics.WeightedFmeasure, WeightedFMeasure),
    }
    contenders = {f"{name}, PySODMetrics": theirs(pair[0], *arrays) for name, pair in pairs.items()}
    contenders |= {f"{name}, ours": ours(pair[1], preds, target, batch) for name, pair in pairs.items()}
    contenders["suite"] = ours(SaliencySuite, preds, target, batch)
    seconds = medians(contenders, rounds)
    for name in pairs:
        a, b = (1000 * seconds[f"{name}, {side}"] / images for side in ("PySODMetrics", "ours"))
        print(f"{name:24} PySODMetrics {a:7.3f} ms   ours {b:7.3f} ms   {a / b:5.1f} x")
    four = 1000 * sum(seconds[f"{name}, PySODMetrics"] for name in ("S", "E", "F", "MAE")) / images
    suite = 1000 * seconds["suite"] / images
    print(f"{'S, E, F, MAE together':24} PySODMetrics {four:7.3f} ms   ours {suite:7.3f} ms   {four / suite:5.1f} x")


def instances(images: int, rounds: int) -> None:
    draw = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(images):
        target = torch.zeros(10, HEIGHT, WIDTH, dtype=torch.bool)
        for mask in target:
            top, left = (int(torch.randint(0, side - 60, (), generator=draw)) for side in mask.shape)
            mask[top : top + 60, left : left + 60] = True
        samples.append(
            (target.roll(int(torch.randint(0, 30, (), generator=draw)), 2), target, torch.rand(10, generator=draw))
        )

    def torchmetrics() -> None:
        metric = MeanAveragePrecision(iou_type="segm", backend="faster_coco_eval")
        labels = torch.zeros(10, dtype=torch.int)
        for preds, target, scores in samples:
            metric.update([{"masks": preds, "scores": scores, "labels": labels}], [{"masks": target, "labels": labels}])
        metric.compute()

    def own() -> None:
        metric = InstanceAveragePrecision()
        for sample in samples:
            metric.update(*sample)
        metric.compute()

    found, true = (
        [
            instance(mask.numpy()) | {"image_id": index, "category_id": 1}
            for index, sample in enumerate(samples)
            for mask in sample[side]
        ]
        for side in (0, 1)
    )
    scores = torch.cat([scores for *_, scores in samples]).double().tolist()
    for number, (result, annotation) in enumerate(zip(found, true, strict=True)):
        result["score"], annotation["id"] = scores[number], number + 1
    pictures = [{"id": index, "height": HEIGHT, "width": WIDTH} for index in range(images)]
    values = {}

    def faster_coco_eval() -> None:
        categories = [{"id": 1, "name": "salient"}]
        truth = COCO({"images": pictures, "annotations": [dict(each) for each in true], "categories": categories})
        evaluation = COCOeval_faster(truth, truth.loadRes([dict(each) for each in found]), "segm")
        evaluation.params.maxDets, evaluation.params.areaRng, evaluation.params.areaRngLbl = [100], [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        values["theirs"] = evaluation.eval["precision"].mean()

    def run_lengths() -> None:
        preds, target, given = ([[] for _ in pictures] for _ in range(3))
        for result in found:
            preds[result["image_id"]].append(result["segmentation"])
            given[result["image_id"]].append(result["score"])
        for annotation in true:
            target[annotation["image_id"]].append(annotation["segmentation"])
        metric = InstanceAveragePrecision()
        metric.update(preds, target, [torch.tensor(each, dtype=torch.float64) for each in given])
        values["ours"] = metric.compute()["ap"].item()

    contenders = {"torchmetrics": torchmetrics, "ours": own}
    contenders |= {"faster-coco-eval": faster_coco_eval, "AP from run lengths": run_lengths}
    seconds = {name: 1000 * each / images for name, each in medians(contenders, rounds).items()}
    assert abs(values["ours"] - values["theirs"]) < 1e-12
    for what, a, b in (("masks", "torchmetrics", "ours"), ("run lengths", "faster-coco-eval", "AP from run lengths")):
        heading, ratio = f"AP from {what}, {images} x 10", seconds[a] / seconds[b]
        print(f"{heading:32} {a} {seconds[a]:7.3f} ms   ours {seconds[b]:7.3f} ms   {ratio:5.1f} x")


def device(rounds: int) -> None:
    if not torch.cuda.is_available():
        print("no GPU here: images per second on one are not measured")
        return
    preds, target = soft_maps(64)
    runs = {kind: ours(SaliencySuite, preds.to(kind), target.to(kind), 64) for kind in ("cpu", "cuda")}
    seconds = medians(runs, rounds)
    cpu, gpu = (64 / seconds[kind] for kind in ("cpu", "cuda"))
    print(
        f"suite, batch 64: CPU {cpu:.0f} images/s, {torch.cuda.get_device_name()} {gpu:.0f} images/s, {gpu / cpu:.1f} x"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--instance-images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"{torch.get_num_threads()} threads, {HEIGHT} x {WIDTH}, torch {torch.__version__}")
    maps(given.images, given.rounds, given.batch)
    instances(given.instance_images, max(1, given.rounds // 3))
    device(given.rounds)
