"""score maps, masks, boxes or counts of any method against a benchmark"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def main(argv: list[str]) -> int:
    """Score a folder of predictions and write results that `lightning-sal table` reads."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal score",
        description="Score predictions against a benchmark. Predictions are saliency maps named as the images (for CoSOD "
        "in one folder a group), colour-coded instances or COCO results for SIS, a JSONL of boxes, counts and masks or COCO "
        "results for perception, detection and counting, or a folder that PredictionWriter has written. Every image, or "
        "question, must have one.",
    )
    parser.add_argument(
        "--preds",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder of predictions, COCO results json, or JSONL of boxes",
    )
    parser.add_argument("--gt", type=Path, required=True, metavar="PATH", help="the benchmark, as distributed")
    parser.add_argument(
        "--task", required=True, help="sod, sis, cosod, perception, detection, counting, or your own as FILE.py:NAME"
    )
    parser.add_argument("--name", help="name of the method, in tables; by default that of the folder of predictions")
    parser.add_argument("--benchmark", metavar="NAME", help="name of the benchmark; by default that of its folder")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for the results; by default runs/score/<name>/<benchmark>"
    )
    parser.add_argument(
        "--normalize", action="store_true", help="stretch each map to [0, 1] first, as some toolboxes do"
    )
    parser.add_argument("--weighted-f", action="store_true", help="add the weighted F-measure, which takes a while")
    arguments = parser.parse_args(argv)

    from rich.console import Console
    from rich.progress import track

    from lightning_sal.evaluation import object_scoring, scoring
    from lightning_sal.evaluation.results import Results, ResultsWriter, measures_of
    from lightning_sal.evaluation.tables import markdown
    from lightning_sal.tasks import ObjectTask, load_task

    task = load_task(arguments.task)
    of_objects = isinstance(task, ObjectTask)
    if task.masks_per_image == 0 and not of_objects:
        raise ValueError(f"the task {task.name} has no masks to score: use `lightning test`")
    name = arguments.name or arguments.preds.resolve().stem
    benchmark = arguments.benchmark or arguments.gt.resolve().stem
    folder = arguments.out or Path("runs/score") / name / benchmark
    way: Any = object_scoring if of_objects else scoring
    pairs = way.pair_up(arguments.preds, arguments.gt, task, benchmark)
    ResultsWriter.prepare(folder)
    tasks = {benchmark: task.name}
    writer = ResultsWriter(folder, tasks)
    options = {"normalize": arguments.normalize, "weighted_f": arguments.weighted_f}
    what = "samples" if of_objects else "images"
    shown = track(pairs, what, console=Console(stderr=True), transient=True)
    metrics = way.score(shown, task, writer, benchmark, **options)
    writer.close()
    results = Results(name, tasks, {benchmark: metrics}, measures_of(tasks))
    writer.finish(results)
    print(markdown([results], list(metrics)), end="")
    print(f"{len(pairs)} {what}. Results: {folder}, failures: {folder / 'failures.html'}")
    return 0
