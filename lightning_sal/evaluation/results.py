"""Results of an evaluation on disk: a folder that tables, comparisons and failure pages are made from.

summary.json          {"name", "tasks": {benchmark: task}, "metrics": {benchmark: {metric: value}},
                      "measures": {metric: its heading, direction, ...}, "settings": {benchmark: {name: value}},
                      "usage": {benchmark: {"samples", "seconds", "input_tokens", "output_tokens", "cost"}}}
<benchmark>.csv       one row an image, in the order of the data
<benchmark>.masks.csv where rows name no files of masks, a row for each of them with small pictures of its masks, for pages
curves.json           of maps, {benchmark: {name: [a number at each threshold]}}; names as `lightning_sal.maps` has them
failures.html         the worst images of each benchmark with pictures; needs nothing beside it
"""

from __future__ import annotations

import csv
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lightning_sal.evaluation.usage import NOTHING, Total, known, summed, total
from lightning_sal.files.reading import parse_object, read_text
from lightning_sal.files.writing import appending, whole
from lightning_sal.pages.failures import Failure, failures_page
from lightning_sal.pages.html import data_uri
from lightning_sal.samples import Usage
from lightning_sal.tasks import TASKS, Measure, get_task
from lightning_sal.tasks.measures import RESPONSES, primary, term_measure
from lightning_sal.tasks.measures import joined as joined_measures

ESCAPED = "backslashreplace"  # what a name of a file holds that is not UTF-8
WORST = 24  # images of a benchmark on the page of failures
NAMES = ("sample", "benchmark", "key", "image", "truth", "prediction")  # fields of a row that say what and where it is


@dataclass(frozen=True, slots=True)
class Results:
    """What one method reached.

    Args:
        name: Of the method.
        tasks: Name of a benchmark -> its task.
        metrics: Name of a benchmark -> metric -> value.
        measures: Metric -> its heading, direction, and what else a table must know of it.
        settings: Name of a benchmark -> how its responses came about, such as temperature and seed, and how they were
            measured, such as the convention.
        usage: Name of a benchmark -> `samples`, and the sums over them of what `lightning_sal.samples.Usage` names; what is
            not known of each of them is left out.
    """

    name: str
    tasks: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    measures: dict[str, Measure] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    usage: dict[str, dict[str, float]] = field(default_factory=dict)

    def measure(self, metric: str) -> Measure:
        """What is known of a metric; one that nothing is said of is called by its name, and more of it is better."""
        return self.measures.get(metric) or Measure(metric)


def write_summary(results: Results, folder: Path) -> Path:
    """Write `summary.json`, in one piece."""
    path = folder / "summary.json"
    with whole(path) as part:
        part.write_text(json.dumps(asdict(results), indent=2, allow_nan=False), encoding="utf-8")
    return path


def read_summary(folder: Path) -> Results:
    """What `write_summary` wrote.

    Raises:
        FileNotFoundError: The folder holds no summary.
        ValueError: The file is none.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a folder that `lightning test` or `score` has written")
    try:
        fields = parse_object(read_text(path))
        stated: dict[str, Any] = fields.pop("measures", {})
        results = Results(**fields)
        measures = {name: Measure(**each) for name, each in stated.items()} or measures_of(results.tasks)
        results.measures.update(measures)
        if (
            not isinstance(results.name, str)
            or not isinstance(results.tasks, dict)
            or not all(map(_are_values, (*results.metrics.values(), *results.usage.values())))
            or not all(isinstance(task, str) for task in results.tasks.values())
            or not all(isinstance(settings, dict) for settings in results.settings.values())
        ):
            raise ValueError(
                "`name`, `tasks`, `metrics`, `settings` or `usage` hold other things than names and values"
            )
        return results
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a summary of results: {error}") from None


def measures_of(tasks: Mapping[str, str], terms: Iterable[str] = ()) -> dict[str, Measure]:
    """What the metrics of some benchmarks are.

    Args:
        tasks: Name of a benchmark -> its task; those that this process does not know are passed over.
        terms: Names of the terms of the reward.
    """
    of_terms = {term_measure(term): Measure(term.replace("_", " "), per_image=True) for term in terms}
    known = (TASKS[task].measures() for task in tasks.values() if task in TASKS)
    return joined_measures([*known, RESPONSES, of_terms])


def _are_values(metrics: Any) -> bool:
    return isinstance(metrics, dict) and all(isinstance(value, int | float) for value in metrics.values())


def holds_results(folder: Path) -> bool:
    """Whether an evaluation, whole or not, was written to a folder."""
    return (folder / "summary.json").exists() or any(not path.name.startswith(".") for path in folder.glob("*.csv"))


def joined(results: Sequence[Results]) -> list[Results]:
    """One for each method: results of one name on different benchmarks become one.

    Raises:
        ValueError: A method comes twice with the same benchmark.
    """
    methods: dict[str, Results] = {}
    for result in results:
        whole = methods.setdefault(result.name, Results(result.name))
        if twice := sorted(set(whole.metrics) & set(result.metrics)):
            raise ValueError(f"two folders hold results of {result.name!r} on {twice[0]}: give one of them, or rename")
        whole.tasks.update(result.tasks)
        whole.metrics.update(result.metrics)
        whole.measures.update(result.measures)
        whole.settings.update(result.settings)
        whole.usage.update(result.usage)
    return list(methods.values())


def masks_of(benchmark: str) -> str:
    """The name of the table of a benchmark's masks."""
    return f"{benchmark}.masks"


def read_masks(folder: Path, benchmark: str) -> list[dict[str, str]]:
    """The small pictures of masks, a row for each of `read_images`; empty where none were kept."""
    name = masks_of(benchmark)
    return read_images(folder, name) if (folder / f"{name}.csv").is_file() else []


def read_images(folder: Path, benchmark: str) -> list[dict[str, str]]:
    """The rows of a benchmark, one an image."""
    with (folder / f"{benchmark}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class ResultsWriter:
    """Collects what is known of each image while an evaluation runs; memory does not grow with their number.

    Args:
        folder: Where to write; it must not hold results yet.
        tasks: Name of a benchmark -> its task.
        part: Number of this process among those that write at once, each with every `parts`-th sample.
        parts: How many they are; the first joins what they wrote by `finish`.

    Raises:
        FileExistsError: The folder holds results.
    """

    def __init__(self, folder: Path, tasks: Mapping[str, str], part: int = 0, parts: int = 1) -> None:
        self.folder, self.tasks, self.part, self.parts = folder, tasks, part, parts
        self.worst: dict[str, list[tuple[float, int, Callable[[], Failure]]]] = {}
        self.counts: Counter[str] = Counter()
        self.used: dict[str, Total] = {}
        self.images, self.samples, self.key = 0, -1, ""

    @staticmethod
    def refuse_results(folder: Path) -> None:
        """Refuse a folder that holds results."""
        if holds_results(folder):
            raise FileExistsError(f"{folder}: results are there already; name another folder")

    @classmethod
    def prepare(cls, folder: Path) -> None:
        """Make the folder; refuse one that holds results. What an unfinished run left there is written over."""
        cls.refuse_results(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        row: Mapping[str, Any],
        pictures: Callable[[], Mapping[str, Image.Image]],
        masks: Mapping[str, str] | None = None,
    ) -> None:
        """Add an image.

        Args:
            row: Its fields, `benchmark` among them.
            pictures: Draws it, what a picture shows -> it; called if it is among the worst in the end.
            masks: What `lightning_sal.pages.pictures.small_masks` gives; of all images of a benchmark, or of none.
        """
        benchmark = row["benchmark"]
        if row["key"] != self.key:  # the images of a group come one after the other
            self.samples, self.key = self.samples + 1, row["key"]
        sample = {"sample": self.samples * self.parts + self.part}
        row = {**sample, **row}
        for name, fields in ((benchmark, row), (masks_of(benchmark), {**sample, **masks} if masks else {})):
            self._append(name, fields, new=benchmark not in self.worst)
        measures = get_task(self.tasks[benchmark]).measures()
        # Of a method that gives boxes and no masks, or the other way round, what there is of the task's measures
        name = next(name for name in (primary(measures), *measures) if row.get(name, "") != "")
        score = float(row[name])
        badness = score if measures[name].lower_is_better else -score
        heap, self.images = self.worst.setdefault(benchmark, []), self.images + 1
        self.counts[benchmark] += 1
        if len(heap) < WORST or badness > heap[0][0]:
            entry = (badness, -self.images, partial(_failure, row, name, pictures))  # drawn once it is known to stay
            (heapq.heappush if len(heap) < WORST else heapq.heapreplace)(heap, entry)

    def _append(self, name: str, fields: Mapping[str, Any], *, new: bool) -> None:
        """Add a row to a table; one without fields is not written."""
        path = self._csv(name, self.part)
        if new:
            path.unlink(missing_ok=True)  # of a run that did not finish
        if not fields:
            return
        with appending(path, errors=ESCAPED) as file:
            writer = csv.DictWriter(file, list(fields))
            if new:
                writer.writeheader()
            writer.writerow(fields)

    def use(self, benchmark: str, usage: Usage | None) -> None:
        """Add what the response to a sample took."""
        self.used[benchmark] = summed([self.used.get(benchmark, NOTHING), total(usage)])

    def close(self) -> None:
        """Write down the worst images of this process, and what its responses took."""
        drawn = {
            name: [self.counts[name], [(*order, asdict(failure())) for *order, failure in heap]]
            for name, heap in self.worst.items()
        }
        with whole(self._own_file(self.part)) as part:
            part.write_text(json.dumps({"worst": drawn, "used": self.used}, allow_nan=False), encoding="utf-8")

    def finish(self, results: Results, curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None) -> None:
        """Join what all processes wrote, once all are closed, and write the summary and the page of failures.

        Args:
            results: Of all benchmarks; what their responses took is added to them.
            curves: Name of a benchmark -> name of a curve -> its points; nothing is written where there are none.
        """
        worst: dict[str, list[tuple[float, int, dict[str, Any]]]] = {}
        counts: Counter[str] = Counter()
        used: dict[str, list[Total]] = {}
        for part in range(self.parts):
            path = self._own_file(part)
            own = json.loads(path.read_text(encoding="utf-8"))
            for benchmark, (count, entries) in own["worst"].items():
                worst.setdefault(benchmark, []).extend(map(tuple, entries))
                counts[benchmark] += count
            for benchmark, each in own["used"].items():
                used.setdefault(benchmark, []).append(each)
            path.unlink()
        results.usage.update({name: each for name, parts in used.items() if (each := known(summed(parts)))})
        for benchmark in worst:
            self._join(benchmark)
            self._join(masks_of(benchmark))
        shown = {
            name: [Failure(**fields) for *_, fields in sorted(entries, key=lambda each: each[:2], reverse=True)[:WORST]]
            for name, entries in worst.items()
        }
        page = failures_page(results.name, shown, counts, {**measures_of(self.tasks), **results.measures})
        with whole(self.folder / "failures.html") as part:
            part.write_text(page, encoding="utf-8", errors=ESCAPED)
        if curves:
            with whole(self.folder / "curves.json") as part:
                part.write_text(json.dumps(curves, allow_nan=False), encoding="utf-8")
        write_summary(results, self.folder)

    def _join(self, name: str) -> None:
        """One file from several, in the order of the data; none from none."""
        lines, head = [], ""
        for part in range(self.parts):
            path = self._csv(name, part)
            if path.exists():
                with path.open(newline="", encoding="utf-8") as file:
                    head, *own = file.readlines()
                lines += own
                path.unlink()
        lines.sort(key=lambda line: int(line.split(",", 1)[0]))  # stable: the images of a sample stay in order
        if not head:
            return
        with whole(self.folder / f"{name}.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            file.writelines([head, *lines])

    def _csv(self, name: str, part: int) -> Path:
        return self.folder / f".{name}-{part}.csv"

    def _own_file(self, part: int) -> Path:
        return self.folder / f".part-{part}.json"


def _failure(row: Mapping[str, Any], ranked: str, draw: Callable[[], Mapping[str, Image.Image]]) -> Failure:
    """A row with its pictures; `ranked` names the measure by which it is among the worst."""
    numbers = {ranked: float(row[ranked])}
    numbers |= {key: float(value) for key, value in row.items() if isinstance(value, int | float) and key not in NAMES}
    words = {key: str(value) for key, value in row.items() if isinstance(value, str) and value and key not in NAMES}
    pictures = {
        shown: data_uri(picture if picture.mode == "L" else picture.convert("RGB"), quality=85)
        for shown, picture in draw().items()
    }
    return Failure(str(row["key"]), str(row["image"]), numbers, words, pictures)
