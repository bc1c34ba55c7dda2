"""score maps, masks, boxes or counts of any method against a benchmark"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.errors import UsageError

if TYPE_CHECKING:
    from lightning_sal.evaluation.jobs import Job
    from lightning_sal.tasks import Task

OF_MAPS = (
    "normalize",
    "truth_above",
    "soft_truth",
    "thresholds",
    "f_max",
    "average",
)  # options that are fields of `Convention`


def main(argv: list[str]) -> int:
    """Score folders of predictions and write results that `lightning-sal table` reads."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.name and len(arguments.preds) > 1:
        raise UsageError(f"--name is the name of one method, and --preds gives {len(arguments.preds)}: leave it out")
    if arguments.benchmark and len(arguments.gt) > 1:
        raise UsageError(f"--benchmark is the name of one, and --gt gives {len(arguments.gt)}: leave it out")
    several = len(arguments.preds) * len(arguments.gt) > 1
    if arguments.html and arguments.html.exists():
        raise FileExistsError(f"{arguments.html}: there is such a file already, and it is not overwritten")

    from lightning_sal.evaluation.jobs import Options, prepare
    from lightning_sal.evaluation.results import ResultsWriter, joined, read_summary
    from lightning_sal.evaluation.tables import markdown
    from lightning_sal.tasks import load_task

    task = load_task(arguments.task)
    convention = {name: value for name in OF_MAPS if (value := getattr(arguments, name)) is not None}
    if arguments.normalize:
        convention["normalize_mae"] = arguments.normalize
    options = Options(
        convention=convention | ({"name": arguments.convention} if arguments.convention else {}),
        metrics=arguments.metrics,
        weighted_f=arguments.weighted_f,
        skip_missing=arguments.skip_missing,
        resize=arguments.resize,
        workers=arguments.workers,
    )
    out = arguments.out or Path("runs/score")
    parts = {}
    for preds in arguments.preds:
        for truth in arguments.gt:
            name, benchmark = arguments.name or preds.resolve().stem, arguments.benchmark or truth.resolve().stem
            folder = arguments.out if arguments.out and not several else out / name / benchmark
            if folder in parts:
                raise UsageError(
                    f"two of --preds or of --gt are called alike, {folder}: rename one, or score them apart"
                )
            ResultsWriter.refuse_results(folder)
            place = preds / benchmark if len(arguments.gt) > 1 else preds
            if preds.exists() and not place.exists():
                raise FileNotFoundError(
                    f"{place}: of several benchmarks, each method has a folder of its name; there is none"
                )
            parts[folder] = name, benchmark, prepare(place, truth, task, benchmark, options)
    for folder, (name, benchmark, job) in parts.items():
        _score(name, benchmark, job, folder, task)
    results = joined([read_summary(folder) for folder in parts])
    known = () if several else [name for name in results[0].measures if name in results[0].metrics[benchmark]]
    print(markdown(results, known), end="")
    print(f"Results: {', '.join(map(str, parts))}; the worst images: failures.html there")
    if arguments.html:
        from lightning_sal.evaluation.report import write_report

        write_report(list(parts), arguments.html)
        print(f"Comparison: {arguments.html}")
    return 0


def _score(name: str, benchmark: str, job: Job, folder: Path, task: Task) -> None:
    from rich.console import Console
    from rich.progress import track

    from lightning_sal.evaluation.results import Results, ResultsWriter, measures_of

    console = Console(stderr=True)
    for note in job.notes:
        console.print(f"{name}, {benchmark}: {note}", style="yellow", soft_wrap=True, markup=False, highlight=False)

    def show(items: Iterable[Any]) -> Iterable[Any]:
        return track(items, f"{name}, {benchmark}", total=job.count, console=console, transient=True)

    ResultsWriter.prepare(folder)
    tasks = {benchmark: task.name}
    writer = ResultsWriter(folder, tasks)
    outcome = job.run(writer, show)
    writer.close()
    results = Results(name, tasks, {benchmark: outcome.metrics}, measures_of(tasks), {benchmark: outcome.settings})
    writer.finish(results, {benchmark: outcome.curves} if outcome.curves else None)
    print(f"{name}, {benchmark}: {job.count} {job.what}")


def _parser() -> argparse.ArgumentParser:
    from lightning_sal.maps.conventions import AVERAGES, CONVENTIONS, F_MAXIMA, NORMALIZATIONS, THRESHOLDS

    parser = argparse.ArgumentParser(
        prog="lightning-sal score",
        description="Score predictions against a benchmark. Predictions are saliency maps named as the images (for CoSOD "
        "in one folder a group), colour-coded instances or COCO results for SIS, a JSONL of boxes, counts and masks or COCO "
        "results for perception, detection and counting, or a folder that PredictionWriter has written. Every image, or "
        "question, must have one. Several methods and several benchmarks are scored one after the other; each method's "
        "folder then holds a folder for each benchmark, of its name.",
    )
    parser.add_argument(
        "--preds",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="folder of predictions, COCO results json, or JSONL of boxes; one a method",
    )
    parser.add_argument(
        "--gt",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="the benchmark, as distributed, or a folder of its masks alone; one or several",
    )
    parser.add_argument(
        "--task", required=True, help="sod, sis, cosod, perception, detection, counting, or your own as FILE.py:NAME"
    )
    parser.add_argument("--name", help="name of the method, in tables; by default that of the folder of predictions")
    parser.add_argument("--benchmark", metavar="NAME", help="name of the benchmark; by default that of its folder")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for the results, by default runs/score/<name>/<benchmark>; of several, <name>/<benchmark> in it",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that compares all that was scored")
    parser.add_argument(
        "--metrics",
        choices=("usual", "all"),
        default="usual",
        help="all adds those that take a while, or that few papers report; by default usual",
    )
    parser.add_argument("--weighted-f", action="store_true", help="add the weighted F-measure, which takes a while")
    parser.add_argument(
        "--workers",
        type=_natural,
        default=0,
        metavar="N",
        help="processes that measure maps; by default 0, this one alone",
    )
    parser.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out images without prediction and predictions without image, and count them, instead of refusing",
    )
    parser.add_argument(
        "--resize",
        choices=("bilinear", "refuse"),
        default="bilinear",
        help="what becomes of maps of another size than their ground truth; by default bilinear",
    )
    maps = parser.add_argument_group("how maps are measured", "docs/conventions.md says what each tool does")
    maps.add_argument(
        "--convention",
        choices=tuple(CONVENTIONS),
        help="as which tool; by default ours, which is that of today's tables",
    )
    maps.add_argument(
        "--normalize",
        nargs="?",
        const="min-max",
        choices=tuple(NORMALIZATIONS),
        help="what becomes of each map first, for MAE too, in place of the convention's; without a value min-max",
    )
    maps.add_argument(
        "--truth-above",
        type=_grey,
        metavar="GREY",
        help="a pixel of a ground truth is object above this grey of 255, in place of the convention's: 127, 128, 25.5",
    )
    maps.add_argument(
        "--soft-truth",
        action=argparse.BooleanOptionalAction,
        help="compare MAE, E and F with the greys of a ground truth of several levels, in place of the convention's",
    )
    maps.add_argument(
        "--thresholds", type=int, choices=tuple(THRESHOLDS), help="how many, in place of the convention's"
    )
    maps.add_argument(
        "--f-max",
        choices=F_MAXIMA,
        help="F max of the mean F curve, or of mean precision and recall, in place of the convention's",
    )
    maps.add_argument(
        "--average",
        choices=AVERAGES,
        help="over images, or first within groups, in place of the convention's",
    )
    return parser


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _grey(text: str) -> float:
    number = float(text)
    if not 0 <= number < 255:
        raise argparse.ArgumentTypeError(f"{text} is no grey from 0 to below 255")
    return number
