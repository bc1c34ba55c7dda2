"""tell words from attention: each policy's responses read by each policy, and where it then looks"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.errors import UsageError
from lightning_sal.internals.gpus import device

if TYPE_CHECKING:
    from lightning_sal.evaluation.decomposition import Decomposition
    from lightning_sal.samples import ImageGroup


def main(argv: list[str]) -> int:
    """Print the alignment of each policy's words under the attention of each, and what either adds from the first on."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal decompose",
        description="Two or more policies answer the same samples, and each reads the answers of all: the alignment of "
        "one's words under another's attention tells whether training changed what is said or where the policy looks. "
        "Needs boxes, or masks for a task with masks. Greedy responses.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="a dataset as `check-data` knows it, or a JSONL")
    parser.add_argument(
        "--scenes", type=_positive, metavar="N", help="N procedural scenes instead, held out of training"
    )
    parser.add_argument("--task", default="vqa", help="%(default)s, or another")
    parser.add_argument("--split", choices=("train", "val", "test"), help="where a dataset holds several")
    parser.add_argument(
        "--policy",
        action="append",
        required=True,
        metavar="[NAME=]POLICY",
        help="as --model of `segment`: tiny-vqa, a folder, a checkpoint; one each, the start of the others first",
    )
    parser.add_argument("--segmenter", help="as --segmenter of `segment`; asked for instances alone")
    parser.add_argument("--max-new-tokens", type=_positive, default=512, help="limit of a response; %(default)s")
    parser.add_argument("--batch-size", type=_positive, default=16, help="samples answered at once; %(default)s")
    parser.add_argument("--device", type=device, help="as torch names it, by default cuda where there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all values there too, as JSON; a new file")
    arguments = parser.parse_args(argv)
    if len(arguments.policy) < 2:
        raise UsageError("give two policies or more: one cannot be told apart from itself")
    if arguments.out is not None and arguments.out.exists():
        raise UsageError(f"{arguments.out} is there already, and is not overwritten: name another file")

    from lightning_sal.datasets.finding import find_samples
    from lightning_sal.tasks import load_task

    try:
        samples = find_samples(load_task(arguments.task), arguments.paths, arguments.scenes, arguments.split)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    found = _decompose(samples, arguments)
    _report(found, arguments.out)
    return 0


def _decompose(samples: Sequence[Callable[[], ImageGroup]], arguments: argparse.Namespace) -> Decomposition:
    import torch
    from rich.console import Console
    from rich.progress import track
    from transformers.utils.logging import disable_progress_bar

    from lightning_sal.evaluation.decomposition import decompose
    from lightning_sal.inference.predictor import find_device, load_policy
    from lightning_sal.segmenters.named import load_segmenter
    from lightning_sal.segmenters.tiny import embedded_segmenter

    disable_progress_bar()
    console = Console(stderr=True)
    device = find_device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    policies: dict[str, Any] = {}
    for given in arguments.policy:
        name, _, source = given.rpartition("=") if not Path(given).exists() else (given, "", given)
        if (name or source) in policies:
            raise UsageError(f"two policies are called {name or source!r}: name them, as NAME=POLICY")
        policies[name or source] = load_policy(source, {}, attributed=True).requires_grad_(False).eval().to(device)
    segmenter = embedded_segmenter() if arguments.segmenter is None else load_segmenter(arguments.segmenter)
    module: Any = segmenter  # where it is one
    if isinstance(module, torch.nn.Module):
        module.requires_grad_(False).eval().to(device)
    size = arguments.batch_size
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    batches = ([read() for read in part] for part in track(parts, "samples", console=console, transient=True))
    return decompose(policies, batches, segmenter, max_new_tokens=arguments.max_new_tokens)


def _report(found: Decomposition, out: Path | None) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from lightning_sal.files.writing import whole

    console = Console(width=None if sys.stdout.isatty() else 120)
    count = int((~found.values.isnan().any(0).any(0)).sum())
    if not count:
        raise ValueError("no sample has a region that a map could lie in: give boxes, or masks, that are not empty")
    grid = Table(title=f"alignment of {count} responses")
    grid.add_column("words of")
    for name in found.names:
        grid.add_column(f"read by {name}", justify="right")
    for name, row in zip(found.names, found.means().tolist(), strict=True):
        grid.add_row(name, *(f"{value:.3f}" for value in row))
    console.print(grid)
    for end in range(1, len(found.names)):
        parts = found.parts(0, end)
        line = ", ".join(f"{name} {mean:+.3f} ± {error:.3f}" for name, (mean, error) in parts.items())
        console.print(f"{found.names[0]} -> {found.names[end]}: {line}", soft_wrap=True, highlight=False)
    if out is not None:
        values = [[[v if v == v else None for v in cell] for cell in row] for row in found.values.tolist()]
        with whole(out) as part:
            part.write_text(json.dumps({"policies": found.names, "alignment": values}) + "\n", encoding="utf-8")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
