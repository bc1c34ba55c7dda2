"""Where RL without SFT steps in between holds, and where it collapses: confidence at the start against reward.

    uv run python benchmarks/collapse.py
    uv run python benchmarks/collapse.py --models tiny tiny-early --temperatures 1 1.5 --scales 1 0.5 0.25 --arms cgpo grpo
    uv run python benchmarks/collapse.py --small --folder /tmp/collapse     # two short runs, in a minute

A cell is a start policy, a temperature of sampling, and a scale s: the reward is s (0.5 correctness + 0.5 format). Policy
and temperature set the confidence c that a run starts with, and s sets the mean reward r. In each cell each arm, a file of
conf/rl, trains adapters for a number of RL steps, all of equally many responses: a group of G takes a G-th of the prompts.

Judged are responses to the same held-out scenes before and after, greedy ones and ones sampled at the temperature:

- collapses: the share in the right format, or correctness, of either fell by more than 0.05 and by more than two standard
  errors of the paired difference;
- improves: it does not collapse, and the share of greedy answers that are exactly the annotated one rose by more than two
  standard errors;
- holds: neither.

Each run is a process of its own, whose numbers are a line of `rows.jsonl` as soon as it ends: those of each scene, mean
confidence, reward and entropy of each step. A run that is there with the same settings is not repeated, so what was stopped
goes on. In the end, or at once with --picture-only, the picture of the runs that the options ask for is drawn anew: a panel
an arm, where colour is the change of the correctness of greedy responses. By default it takes about 20 minutes on two idle
cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from rows import processes  # noqa: E402
from rows.results import Results  # noqa: E402

from lightning_sal.evaluation.comparison import evaluate, paired_difference  # noqa: E402

ARMS = [
    "cgpo", "cgpo_centred", "cgpo_scaled", "cgpo_answer", "cgpo_geometric", "cgpo_calibrated", "batch_loo", "grpo"
]  # fmt: skip
MARGIN, ERRORS = 0.05, 2  # what a fall must exceed, itself and in standard errors
MARKERS = {"improves": "^", "holds": "o", "collapses": "X"}
EVALUATED = 32  # scenes at a time
SECONDS = 900  # after which a run is given up
START = ("model", "wording", "temperature", "scenes")  # what the responses at the start depend on
SMALL = dict(
    models=["tiny-early"], temperatures=[1.0], scales=[0.5], arms=["cgpo", "grpo"], steps=2, responses=8, scenes=4
)

Columns = dict[str, list[float]]


def at_start(given: Namespace) -> dict[str, Any]:
    """The responses of a start policy."""
    from arms import config_of, module_of

    config = config_of("cgpo", *_options(given))
    return judged(module_of(config), config, given)


def after_run(given: Namespace) -> dict[str, Any]:
    """The responses of a policy after a run, and what each of its steps was like."""
    import lightning as L
    from arms import config_of, data_of, fit, module_of, seeded

    weights = dict.fromkeys(("correctness", "format"), given.scale / 2)
    reward = {"class_path": "lightning_sal.rewards.Reward", "init_args.weights": weights}
    options = [f"--model.init_args.reward.{key}={value}" for key, value in reward.items()]
    options += [
        f"--model.init_args.optimizer.init_args.lr={given.lr}",
        f"--model.init_args.temperature={given.temperature}",
    ]
    config = config_of(given.arm, *_options(given), *options, *seeded(given.seed))
    module, steps = module_of(config), []

    class Steps(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            record = module.record
            means = {"confidence": record.confidence, "reward": record.rewards.total}
            entropy = record.entropy[record.scored]  # GRPO scores no group of equal rewards
            steps.append({name: value.mean().item() for name, value in means.items()})
            steps[-1]["entropy"] = entropy.mean().item() if len(entropy) else None

    prompts = max(1, given.responses // module.responses_per_prompt)
    stream = iter(data_of(config, streams=["rl"], batch_size=prompts).train_dataloader())
    batches = [next(stream) for _ in range(given.steps)]
    fit(module, batches, config["trainer"]["gradient_clip_val"], [Steps()])
    return judged(module, config, given) | {"steps": steps}


def _options(given: Namespace) -> list[str]:
    options = [f"--model.init_args.policy.model={given.model}"]
    return options + ([f"--data.init_args.wording={given.wording}"] if given.wording else [])


def judged(module: Any, config: dict[str, Any], given: Namespace) -> dict[str, Any]:
    """Values of the responses to each held-out scene, greedy and sampled: those of a run are made as those of its start."""
    from arms import data_of

    data = data_of(config, streams=["rl"], batch_size=EVALUATED, val_size=given.scenes)
    found = {}
    for name, heat in {"greedy": 0.0, "sampled": given.temperature}.items():
        module.evaluation_temperature = heat
        samples, _ = evaluate(module, data.val_dataloader())
        found[name] = {
            "exact": [float(bool(sample.exact)) for sample in samples],
            "format": [float(sample.terms["format"] == 1) for sample in samples],
            "correctness": [sample.correctness for sample in samples],
            "format_reward": [sample.terms["format"] for sample in samples],
            "confidence": [sample.confidence or 0.0 for sample in samples],
        }
    return found


class Cell(NamedTuple):
    """What became of an arm in a cell.

    Args:
        arm: Its name.
        confidence: Mean c of sampled responses at the start, in [0, 1].
        reward: Their mean reward, in [0, s].
        verdict: A key of `MARKERS`.
        gain: Change of the correctness of greedy responses.
    """

    arm: str
    confidence: float
    reward: float
    verdict: str
    gain: float


def verdict_of(before: Mapping[str, Columns], after: Mapping[str, Columns]) -> str:
    """Whether a policy improves, holds or collapses; see the head of this file."""
    for kind, name in itertools.product(("greedy", "sampled"), ("format", "correctness")):
        change, error = paired_difference(after[kind][name], before[kind][name])
        if -change > max(MARGIN, ERRORS * error):
            return "collapses"
    change, error = paired_difference(after["greedy"]["exact"], before["greedy"]["exact"])
    return "improves" if change > ERRORS * error else "holds"


def cells(records: Sequence[Mapping[str, Any]]) -> Iterator[Cell]:
    """Of each run that has ended, and whose start is there, in their order."""
    starts = {_start_key(record["given"]): record["values"] for record in records if _ended(record, "start")}
    for record in records:
        given = record["given"]
        if not _ended(record, "run") or (before := starts.get(_start_key(given))) is None:
            continue
        after, sampled = record["values"], before["sampled"]
        earned = (fmean(sampled["correctness"]) + fmean(sampled["format_reward"])) / 2
        gain, _ = paired_difference(after["greedy"]["correctness"], before["greedy"]["correctness"])
        yield Cell(given["arm"], fmean(sampled["confidence"]), given["scale"] * earned, verdict_of(before, after), gain)


def _ended(record: Mapping[str, Any], row: str) -> bool:
    return record["row"] == row and "values" in record


def _start_key(given: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(given[name] for name in START)


MEASURES: dict[str, Callable[[Namespace], dict[str, Any]]] = {"start": at_start, "run": after_run}


def jobs(given: Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows and what each is given: the starts, then every arm in every cell, cell by cell."""
    common = {"wording": given.wording, "scenes": given.scenes}
    each = {name: getattr(given, name) for name in ("steps", "responses", "lr", "seed")}
    places = list(itertools.product(given.models, given.temperatures))
    for model, temperature in places:
        yield "start", common | {"model": model, "temperature": temperature}
    for (model, temperature), scale, arm in itertools.product(places, given.scales, given.arms):
        yield "run", common | each | {"model": model, "temperature": temperature, "scale": scale, "arm": arm}


def run(todo: Sequence[tuple[str, dict[str, Any]]], results: Results, at_once: int) -> None:
    """Run what is not there yet, and write each as it ends."""
    there = [(record["row"], record["given"]) for record in results.all() if "values" in record]
    todo = [job for job in todo if job not in there]
    print(f"{len(todo)} runs", flush=True)
    if not todo:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # two threads that wait for each other beside a busy core are ten times as slow
    processes.begin([HERE, HERE.parent], ["rows.warm", "arms"])
    with ThreadPoolExecutor(at_once) as pool:
        log = results.path.with_name("log.txt")
        futures = {
            pool.submit(processes.measured, MEASURES[row], given, SECONDS, log): (row, given) for row, given in todo
        }
        try:
            for number, future in enumerate(as_completed(futures), 1):
                row, given = futures[future]
                results.add({"row": row, "given": given, **future.result()})
                place = f"{given['model']}, temperature {given['temperature']}, scale {given.get('scale', 1)}"
                ending = future.result().get("failed", f"{future.result()['seconds']:.0f} s")
                print(f"{number} of {len(todo)}: {given.get('arm', 'start')}, {place}: {ending}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those under way end first
            raise


def draw(found: Sequence[Cell], path: Path) -> None:
    """A panel an arm: start confidence, start reward, verdict and gain of its cells, and the line where c = r."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    arms = list(dict.fromkeys(cell.arm for cell in found))
    columns = min(4, len(arms))
    rows = -(-len(arms) // columns)
    figure = Figure(figsize=(3.2 * columns + 1.4, 3.2 * rows + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    bound = max(0.01, *(abs(cell.gain) for cell in found))
    colours = ScalarMappable(Normalize(-bound, bound), "RdBu")
    for arm, axes in itertools.zip_longest(arms, panels):
        axes.set_visible(arm is not None)
        axes.plot([0, 1], [0, 1], color="0.6", lw=1, zorder=0)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", title=arm or "")
        for verdict, marker in MARKERS.items():
            mine = [cell for cell in found if cell.arm == arm and cell.verdict == verdict]
            axes.scatter(
                [cell.confidence for cell in mine],
                [cell.reward for cell in mine],
                c=[cell.gain for cell in mine],
                marker=marker, s=70, edgecolors="black", linewidths=0.7, cmap=colours.cmap, norm=colours.norm,
            )  # fmt: skip
    figure.supxlabel("mean confidence at the start")
    figure.supylabel("mean reward at the start")
    figure.colorbar(colours, ax=panels, label="change of correctness, greedy", shrink=0.8)
    shapes = [Line2D([], [], marker=m, color="none", markeredgecolor="black", label=v) for v, m in MARKERS.items()]
    figure.legend(handles=[*shapes, Line2D([], [], color="0.6", label="c = r")], loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/collapse"), help="of rows.jsonl and the log")
    parser.add_argument("--arms", nargs="+", default=ARMS, metavar="NAME", help="files of conf/rl")
    parser.add_argument(
        "--models", nargs="+", default=["tiny-early", "tiny-varied"], metavar="NAME", help="start policies"
    )
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0.7, 1.0, 1.5], metavar="T")
    parser.add_argument(
        "--scales", nargs="+", type=float, default=[1.0, 0.5], metavar="S", help="of the reward, in (0, 1]"
    )
    parser.add_argument("--wording", help="how the scenes are spoken of")
    parser.add_argument("--steps", type=int, default=30, help="RL steps of a run")
    parser.add_argument("--responses", type=int, default=32, help="responses a step")
    parser.add_argument("--lr", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--scenes", type=int, default=96, help="held-out scenes, >= 2")
    parser.add_argument("--seed", type=int, default=0, help="of adapters, prompts and sampling")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--small", action="store_true", help="one cell, two arms, two steps")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; by default collapse.png in the folder")
    parser.add_argument("--picture-only", action="store_true", help="run nothing: draw what is there")
    given = parser.parse_args()
    if given.small:
        vars(given).update(SMALL)
    if not all(0 < scale <= 1 for scale in given.scales):
        parser.error(f"--scales lie in (0, 1], not {given.scales}")
    results = Results(given.folder)
    asked = list(jobs(given))
    if not given.picture_only:
        run(asked, results, given.processes)
    there = results.all()
    found = list(cells([record for job in asked for record in there if (record["row"], record["given"]) == job]))
    if not found:
        parser.error(f"no run that is asked for has ended in {results.path}: see {given.folder / 'log.txt'}")
    for cell in found:
        print(f"{cell.arm}: c {cell.confidence:.2f}, r {cell.reward:.2f}: {cell.verdict}, {cell.gain:+.3f}")
    plot = given.plot or given.folder / "collapse.png"
    draw(found, plot)
    print(f"Written: {plot}")


if __name__ == "__main__":
    main()
