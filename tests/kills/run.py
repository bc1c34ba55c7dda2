"""Kill fits in all ways and let them go on: weights and scalars must be those of the fit that nobody disturbed.

    OMP_NUM_THREADS=1 uv run python -m tests.kills.run --kills 50

Kinds, in turn: SIGKILL within 30 ms after a checkpoint has its name, SIGKILL at any time, SIGTERM at any time. Algorithms,
in turn: CGPO with interleaved SFT, GRPO, DAPO, on the tiny policy. Each fit is a command line in a forked process; after a
SIGKILL it goes on by `--ckpt_path last-good`, after a SIGTERM by what its line says. Prints a line a kill and a summary;
exit code 1 if anything differs.
"""

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import torch
import yaml

import tests.forking  # noqa: F401

STEPS, EPOCH = 6, 4
TIMES = re.compile(r"train/(seconds/|tokens_per_second|memory_gb)")  # what no two runs share

ALGORITHMS = {
    "CGPO": {"micro_batch_size": 3},
    "GRPO": {"responses_per_prompt": 2, "updates_per_rollout": 2},
    "DAPO": {"responses_per_prompt": 2, "prompts_per_step": 2},
}
QUEUE = {"capacity": 5, "zeros": 2, "digits": None}
KINDS = ("after a checkpoint", "at random", "SIGTERM")


def config(algorithm, folder, steps=STEPS):
    callbacks = ["RolloutMonitor", "ResponseTypes", "Reliability"]
    options = {"RolloutMonitor": {"histogram_every_n_steps": 3}}
    listed = [
        {"class_path": f"lightning_sal.callbacks.{name}", "init_args": options.get(name, {"every_n_steps": 5})}
        for name in callbacks
    ]
    streams = ["rl"]
    if algorithm == "CGPO":
        streams = ["rl", "sft"]
        listed.append(
            {"class_path": "lightning_sal.callbacks.InterleavedSFT", "init_args": {"rl_steps": 2, "sft_steps": 1}}
        )
    saver = {"every_n_train_steps": 2, "save_top_k": 1, "save_last": True}
    listed.append({"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver})
    module = {
        "policy": {"model": "tiny-scratch", "lora": {"rank": 4}},
        "segmenter": {"class_path": "tests.kills.parts.Blind"},
        "max_new_tokens": 6,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"total_iters": 10}},
        "reward": {
            "class_path": "lightning_sal.rewards.RankedReward",  # of whose queue the second step fills what the first left
            "init_args": {"terms": [{"class_path": "tests.kills.parts.Wobbling"}], **QUEUE},
        },
    }
    data = {"streams": streams, "batch_size": 3, "steps_per_epoch": EPOCH, "annotated": 9, "val_size": 0}
    return {
        "seed_everything": 0,
        "trainer": {
            "max_steps": steps,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "limit_val_batches": 0,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {"save_dir": str(folder), "name": "run"},
            },
            "callbacks": listed,
        },
        "model": {
            "class_path": f"lightning_sal.modules.{algorithm}",
            "init_args": module | ALGORITHMS[algorithm],
        },
        "data": {"class_path": "lightning_sal.datamodules.ScenesDataModule", "init_args": data},
    }


def warm():
    """Import once, for all children, what is slow to; no thread may start before they fork."""
    torch.set_num_threads(1)
    for name in (
        "lightning.pytorch.cli",
        "lightning_sal.callbacks",
        "lightning_sal.cli",
        "lightning_sal.datamodules",
        "lightning_sal.modules",
        "matplotlib.backends.backend_agg",
        "tensorboard.backend.event_processing.event_accumulator",
        "torch.utils.tensorboard",
        "tests.kills.parts",
    ):
        import_module(name)
    from lightning_sal.policy.config import LoRA, PolicyConfig
    from lightning_sal.policy.fast import FastPolicy

    FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=4)))


def start(folder, *options):
    """Begin the fit of `config.yaml` of a folder in a process of its own; returns its number."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from lightning_sal.cli import main

    code = 99
    try:
        code = main(["fit", "--config", str(folder / "config.yaml"), *options])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child):
    """The exit code of a process, negative where a signal ended it; None while it runs."""
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepared(algorithm, folder):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(algorithm, folder)))
    return folder


def outcome(folder):
    """Weights and optimizer states at the end, and the scalars as TensorBoard reads them; of times, the steps alone."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = max((folder / "run").glob("version_*"), key=lambda path: int(path.name.partition("_")[2]))
    last = max((run / "checkpoints").glob("last*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    saved = torch.load(last, weights_only=True)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if not TIMES.match(name)
    }
    times = {
        name: [event.step for event in events.Scalars(name)] for name in events.Tags()["scalars"] if TIMES.match(name)
    }
    return {
        "step": saved["global_step"],
        "weights": saved["state_dict"],
        "optimizer": saved["optimizer_states"],
        "buffers": saved["buffers"],
    }, (scalars, times)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def difference(expected, found):
    """What differs, in words; empty where all is the same."""
    (state, (scalars, times)), (state2, (scalars2, times2)) = expected, found
    wrong = [name for name in state if not same(state[name], state2[name])]
    wrong += sorted(scalars.keys() ^ scalars2.keys()) + sorted(times.keys() ^ times2.keys())
    wrong += [name for name in scalars if name in scalars2 and not same(scalars[name], scalars2[name])]
    return wrong + [name for name in times if name in times2 and times[name] != times2[name]]


def killed(folder, kind, draw, step_seconds):
    """Start the fit and end it by force; returns its exit code, and when that was."""
    saved = draw.choice((2, 4))
    wanted = folder / "run" / "version_0" / "checkpoints" / f"epoch={(saved - 1) // EPOCH}-step={saved}.ckpt"
    child = start(folder)
    early = kind == "at random" and draw.random() < 0.2
    until = time.monotonic() + draw.uniform(0, 3 * step_seconds)
    while (code := ended(child)) is None and not (time.monotonic() > until if early else wanted.exists()):
        time.sleep(0.001)
    pause = draw.uniform(0, 0.03) if kind == "after a checkpoint" else 0 if early else draw.uniform(0, step_seconds)
    if code is None:
        time.sleep(pause)
        os.kill(child, signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL)
        code = finish(child)
    return code, "early" if early else f"{pause * 1000:.0f} ms after step={saved}.ckpt"


def resume_from(folder, code):
    """Let a fit that was ended go on; returns its exit code and how it was started."""
    options = ["--ckpt_path", "last-good"]
    if code == 128 + signal.SIGTERM:
        (path,) = re.findall(
            r"terminated after step \d+: .* --ckpt_path (\S+) goes on", (folder / "output.txt").read_text()
        )
        options[1] = path
    elif not list(folder.glob("run/version_*/checkpoints/*.ckpt")):
        options = []  # it got to no checkpoint
    return finish(start(folder, *options)), options


def run(kills, folder, seed=0, algorithms=tuple(ALGORITHMS), kinds=KINDS, say=print):
    """Do all of it; returns the lines of what went wrong."""
    warm()
    draw = random.Random(seed)
    expected, wrong, counts, seconds = {}, [], Counter(), 0.0
    for number in range(kills):
        algorithm, kind = algorithms[number % len(algorithms)], kinds[number // len(algorithms) % len(kinds)]
        if algorithm not in expected:
            began = time.monotonic()
            whole = prepared(algorithm, folder / algorithm)
            if code := finish(start(whole)):
                return [f"{algorithm} undisturbed ended with {code}: {(whole / 'output.txt').read_text()[-2000:]}"]
            seconds = (time.monotonic() - began) / STEPS
            expected[algorithm] = outcome(whole)
        where = prepared(algorithm, folder / f"kill-{number}")
        code, when = killed(where, kind, draw, seconds)
        again, options = resume_from(where, code)
        allowed = {128 + signal.SIGTERM, 0} if kind == "SIGTERM" else {-signal.SIGKILL, 0}  # 0: it was done before
        faults = [] if code in allowed else [f"exit code {code}"]
        faults += [f"went on with exit code {again}"] if again else difference(expected[algorithm], outcome(where))
        counts[algorithm, kind, code] += 1
        how = " ".join(options[1:]).rpartition("/")[2] or "from the start"
        line = f"kill {number}: {algorithm}, {kind} ({when}), exit code {code}, went on {how}: "
        say(line + ("same" if not faults else f"DIFFERS: {', '.join(faults)}"), flush=True)
        if faults:
            wrong.append(line + ", ".join(faults))
    for (algorithm, kind, code), count in sorted(counts.items()):
        say(f"{algorithm:5} {kind:20} exit code {code:4}: {count}")
    say(f"{kills} kills, {len(wrong)} with a difference", flush=True)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sys.exit(bool(run(arguments.kills, Path(place), arguments.seed)))
