"""How long `lightning-sal score` takes beside a plain loop of PySODMetrics over the same files: S, E, F and MAE.

    uv run python benchmarks/score.py [--images 60 300 2000] [--rounds 5] [--cores 1 2] [--files warm cold]
                                      [--preds FOLDER --gt FOLDER]

Each run is a process of its own, imports included, on one core and on two; files are in the page cache (warm) or not (cold).
Shown are medians over rounds in which all take their turn, of processor time and of wall time, and their ratio. Without
folders maps of 321 x 481 pixels are made; with them, theirs are taken, again and again until there are enough.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

LOOP = """
import sys
from pathlib import Path
import cv2
import py_sod_metrics as metrics
measures = [metrics.Smeasure(), metrics.Emeasure(), metrics.Fmeasure(), metrics.MAE()]
for mask in sorted(Path(sys.argv[2]).iterdir()):
    pred, gt = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (Path(sys.argv[1], mask.name), mask))
    for measure in measures:
        measure.step(pred, gt)
print([measure.get_results() for measure in measures])
"""


def made(folder: Path, count: int) -> tuple[Path, Path]:
    """Blurred and noisy versions of random blobs as 8-bit files, and the blobs as masks."""
    draw = np.random.default_rng(0)
    for number in range(count):
        noise = gaussian_filter(draw.normal(size=(321, 481)), 40)
        mask = noise > np.quantile(noise, 0.7)
        soft = np.clip(gaussian_filter(mask.astype(float), 8) + 0.02 * draw.normal(size=mask.shape), 0, 1)
        for name, values in (("maps", soft), ("masks", mask)):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * values).astype(np.uint8)).save(path)
    return folder / "maps", folder / "masks"


def repeated(preds: Path, masks: Path, folder: Path, count: int) -> tuple[Path, Path]:
    """The files again and again, each time under new names."""
    sources = [(preds / mask.name, mask) for mask in sorted(masks.iterdir())]
    for side, name in enumerate(("maps", "masks")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shutil.copyfile(sources[number % len(sources)][side], folder / name / f"{number:05}.png")
    return folder / "maps", folder / "masks"


def forget(folders: Sequence[Path]) -> None:
    """Drop the files from the page cache."""
    for folder in folders:
        for path in folder.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def timed(command: Sequence[str], cores: int) -> tuple[float, float]:
    """Seconds of processor and of wall time of a command, its own processes included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    subprocess.run(command, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, allowed))
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[60, 300, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--files", nargs="+", choices=("warm", "cold"), default=["warm", "cold"])
    parser.add_argument("--preds", type=Path, help="folder of maps, called as the masks")
    parser.add_argument("--gt", type=Path, help="folder of masks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        preds, masks = (
            (arguments.preds, arguments.gt) if arguments.preds else made(root / "made", min(60, *arguments.images))
        )
        print(f"{'images':>6} {'cores':>5} {'files':5}  {'':22}{'CPU s':>8}{'wall s':>8}")
        for count in arguments.images:
            maps, truth = repeated(preds, masks, root / str(count), count)
            for cores in arguments.cores:
                for files in arguments.files:
                    compare(maps, truth, count, cores, files, arguments.rounds, root)


def compare(maps: Path, masks: Path, count: int, cores: int, files: str, rounds: int, root: Path) -> None:
    """Print a line for each contender."""
    ours = [sys.executable, "-m", "lightning_sal", "score", "--preds", str(maps), "--gt", str(masks), "--task", "sod"]
    contenders = {
        "PySODMetrics, a loop": [sys.executable, "-W", "ignore", "-c", LOOP, str(maps), str(masks)],
        "score": ours,
    }
    if cores > 1:
        contenders["score --workers 2"] = [*ours, "--workers", "2"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, command in contenders.items():
            if files == "cold":
                forget([maps, masks])
            out = root / "results"
            times[name].append(timed([*command, "--out", str(out)] if "score" in name else command, cores))
            shutil.rmtree(out, ignore_errors=True)
    medians = {name: [statistics.median(side) for side in zip(*found, strict=True)] for name, found in times.items()}
    theirs = medians["PySODMetrics, a loop"]
    for name, (cpu, wall) in medians.items():
        shares = "" if name.startswith("PySOD") else f"   {cpu / theirs[0]:.2f} of CPU, {wall / theirs[1]:.2f} of wall"
        print(f"{count:6} {cores:5} {files:5}  {name:22}{cpu:8.2f}{wall:8.2f}{shares}")


if __name__ == "__main__":
    main()
