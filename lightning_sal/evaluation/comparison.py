"""Compare trainings on the same held-out samples: exactly right answers and masks, paired."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_sal.files.reading import parse_object, read_text
from lightning_sal.files.writing import whole
from lightning_sal.inference.responses import Prediction, prediction_of
from lightning_sal.internals.activity import doing
from lightning_sal.rewards import Correctness
from lightning_sal.samples import Batch
from lightning_sal.tasks import TASKS, get_task
from lightning_sal.tasks.measures import primary

NUMBER = (int, float)
KINDS: dict[str, Any] = {
    "key": str, "task": str, "exact": (bool, type(None)), "correctness": NUMBER, "reward": NUMBER,
    "confidence": (*NUMBER, type(None)), "measure": str, "terms": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """How the greedy response to one held-out sample did.

    Args:
        key: Key of the image group.
        task: Name of its task.
        exact: Whether its answer is exactly the annotated one; None where the sample or the task has no such answer.
        correctness: The primary measure of its task, in [0, 1].
        reward: Its reward.
        confidence: Mean probability of its tokens, in [0, 1]; None where it is not known.
        measure: Heading of the primary measure; empty in files of before it was written.
        terms: Name of a term of the reward -> its value; those that have none for this sample are left out.
    """

    key: str
    task: str
    exact: bool | None
    correctness: float
    reward: float
    confidence: float | None
    measure: str = ""
    terms: dict[str, float] = field(default_factory=dict)


def evaluate(module: Any, batches: Iterable[Batch]) -> tuple[list[Sample], list[Prediction]]:
    """Greedy responses of a `PolicyModule` to annotated held-out samples, in their order."""
    samples, predictions = [], []
    for batch in batches:
        rewards, responses = module.evaluate(batch.groups)
        if not responses:  # of a process that has no sample left
            continue
        correct = Correctness()(responses).values  # the primary measure, whatever is rewarded: arms stay comparable
        for row, (response, value, reward) in enumerate(zip(responses, correct, rewards.total, strict=True)):
            task, prediction = get_task(response.group.task), prediction_of(response)
            measures = task.measures()
            samples.append(
                Sample(
                    response.group.key,
                    task.name,
                    task.agrees(response.answer, response.group),
                    value.item(),
                    reward.item(),
                    prediction.confidence,
                    measures[primary(measures)].heading,
                    rewards.of(row),
                )
            )
            predictions.append(prediction)
    return samples, predictions


def train_supervised(
    module: Any,
    batches: Iterable[Batch],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    clip: float | None,
    what: str = "SFT only",
) -> int:
    """SFT alone, with a fresh optimiser of the module's own making, for a number of steps or a time.

    Args:
        module: A `PolicyModule`; its policy is trained in place.
        batches: Annotated batches without an end.
        steps: Optimisation steps, or None for no bound.
        seconds: Wall time after which no step starts, or None for no bound.
        clip: Largest gradient norm, or None.
        what: What it is called while it is going on.

    Returns:
        The number of steps done.
    """
    if steps is None and seconds is None:
        raise ValueError("train_supervised: give steps or seconds")
    made = module.configure_optimizers()
    optimizer, scheduler = (
        (made["optimizer"], made["lr_scheduler"]["scheduler"]) if isinstance(made, dict) else (made, None)
    )
    start, passed, done = time.perf_counter(), 0.0, 0
    stream = iter(batches)
    with doing(what, steps or seconds, "step" if steps else "second", kept=True) as activity:
        while done != steps and (seconds is None or passed < seconds):
            optimizer.zero_grad()
            for loss in module.sft_losses(next(stream)):
                loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            done, passed = done + 1, time.perf_counter() - start
            activity.to(done if steps else round(passed))
    return done


def trainable_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights that are trained."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def restore(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put a copy of the trained weights back."""
    for name, parameter in module.named_parameters():
        if name in state:
            parameter.copy_(state[name])


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Mean of ours - theirs over the same samples, and its standard error s / sqrt(n)."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    n = len(differences)
    mean = sum(differences) / n
    variance = sum((d - mean) ** 2 for d in differences) / max(n - 1, 1)
    return mean, math.sqrt(variance / n)


def tasks_of(samples: Iterable[Sample]) -> list[str]:
    """The tasks of some samples: those that this process knows first, in its order, then the others as they come."""
    found = dict.fromkeys(sample.task for sample in samples)
    return [task for task in TASKS if task in found] + [task for task in found if task not in TASKS]


def heading_of(samples: Iterable[Sample], task: str) -> str:
    """What correctness is called for a task."""
    stated = next((sample.measure for sample in samples if sample.task == task and sample.measure), "")
    measures = TASKS[task].measures() if task in TASKS else {}
    return stated or (measures[primary(measures)].heading if measures else "correctness")


def values_of(samples: Sequence[Sample]) -> dict[str, list[float]]:
    """`correctness` and `reward` of all samples; of those that have them `confidence`, `exact`, `exact/<task>` and
    `reward/<term>`."""
    values = {name: [float(getattr(s, name)) for s in samples] for name in ("correctness", "reward")}
    values["confidence"] = [s.confidence for s in samples if s.confidence is not None]
    for name, tasks in {"exact": tasks_of(samples), **{f"exact/{task}": [task] for task in tasks_of(samples)}}.items():
        values[name] = [float(s.exact) for s in samples if s.task in tasks and s.exact is not None]
    for term in dict.fromkeys(term for s in samples for term in s.terms):
        values[f"reward/{term}"] = [s.terms[term] for s in samples if term in s.terms]
    return {name: found for name, found in values.items() if found}


def summary(samples: Sequence[Sample]) -> dict[str, float]:
    """The means of `values_of`."""
    return {name: sum(found) / len(found) for name, found in values_of(samples).items()}


def write_arms(arms: Mapping[str, Sequence[Sample]], path: Path) -> None:
    """One JSON object a line: the arm and the fields of the sample."""
    if path.exists():
        raise FileExistsError(f"{path} is there already, and is not overwritten")
    with whole(path) as part, part.open("w") as file:
        for arm, samples in arms.items():
            file.writelines(json.dumps({"arm": arm, **asdict(sample)}, allow_nan=False) + "\n" for sample in samples)


def read_arms(path: Path) -> dict[str, list[Sample]]:
    """What `write_arms` wrote.

    Raises:
        ValueError: If a line is not such an object; it is named.
    """
    arms: dict[str, list[Sample]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = parse_object(line)
            arm, sample = str(fields.pop("arm")), Sample(**fields)
            if not all(isinstance(getattr(sample, name), kinds) for name, kinds in KINDS.items()):
                raise ValueError("a field holds another kind of value")
            arms.setdefault(arm, []).append(sample)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}:{number}: not a sample of a comparison: {error}") from None
    return arms


def table(arms: Mapping[str, Sequence[Sample]], title: str) -> Any:
    """A Rich table of means, one row a measure and one column an arm.

    Every arm has the same samples in the same order.
    """
    columns = {name: summary(samples) for name, samples in arms.items()}
    cells = {key: [f"{means[key]:.3f}" if key in means else "" for means in columns.values()] for key in _rows(arms)}
    return _grid(title, list(columns), _rows(arms), cells)


def differences(arms: Mapping[str, Sequence[Sample]], ours: str) -> Any:
    """A Rich table of an arm less each of the others, with the standard error of the paired difference."""
    others = [name for name in arms if name != ours]
    cells = {}
    for key in _rows(arms):
        cells[key] = []
        for other in others:
            values = ((value_of(a, key), value_of(b, key)) for a, b in zip(arms[ours], arms[other], strict=True))
            pairs = [(a, b) for a, b in values if a is not None and b is not None]
            mean, error = paired_difference(*zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
            cells[key].append(f"{mean:+.3f} ± {error:.3f}" if pairs else "")
    title = "Differences on the same samples, ± standard error"
    return _grid(title, [f"{ours} - {other}" for other in others], _rows(arms), cells)


def _rows(arms: Mapping[str, Sequence[Sample]]) -> dict[str, str]:
    """What a table of arms shows, as `summary` names it -> its heading."""
    everything = [sample for samples in arms.values() for sample in samples]
    tasks = tasks_of(everything)
    correctness = " / ".join(dict.fromkeys(heading_of(everything, task) for task in tasks)) or "correctness"
    exact = ["exact", *(f"exact/{task}" for task in tasks if len(tasks) > 1)]  # one task alone is all samples
    means = [summary(samples) for samples in arms.values()]
    heads = {key: " ".join(reversed(key.split("/"))) for key in exact if all(key in each for each in means)}
    terms = dict.fromkeys(term for sample in everything for term in sample.terms if term != Correctness.name)
    return heads | {"correctness": correctness, "reward": "reward"} | {f"reward/{t}": t for t in terms} | {
        "confidence": "confidence"
    }  # fmt: skip


def value_of(sample: Sample, key: str) -> float | None:
    """What a sample has of `values_of`, or of `correctness/<task>`; None where it has none."""
    kind, _, name = key.partition("/")
    if kind == "reward" and name:
        return sample.terms.get(name)
    value = getattr(sample, kind)
    return None if value is None or name not in ("", sample.task) else float(value)


def _grid(title: str, columns: Sequence[str], rows: Mapping[str, str], cells: Mapping[str, Sequence[str]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD)
    grid.add_column("", no_wrap=True)
    for column in columns:
        grid.add_column(column, justify="right")
    for key, head in rows.items():
        grid.add_row(head, *cells[key])
    return Group(title, grid)
