"""print a table of results, or what two methods differ by; or write the whole comparison as a page"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Print a table of results or the paired bootstrap intervals of two, or write the whole comparison."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal table",
        description="Print a table with a row for each method and the best of each column in bold; folders of one method "
        "are joined. With --difference, two folders are compared image by image: the mean difference of each metric that "
        "every image has, and its 95 % interval over 10,000 bootstrap resamples of the images. With --html, a page is "
        "written in place of the table, which opens with nothing beside it: all metrics, curves over thresholds, the values "
        "of single images, what every two methods differ by, and the best and the worst images with thumbnails.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="what `lightning test` or `score` has written"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown", help="by default markdown")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=(),
        metavar="NAME",
        help="columns, such as s_measure; by default what papers on the task report",
    )
    what.add_argument("--difference", action="store_true", help="compare the first folder with the second")
    what.add_argument(
        "--html", type=Path, metavar="FILE", help="write the whole comparison to this page, which must not be there yet"
    )
    arguments = parser.parse_args(argv)

    from lightning_sal.evaluation.results import joined, read_summary
    from lightning_sal.evaluation.tables import FORMATS, conventions_apart, difference_lines

    if arguments.html:
        from lightning_sal.evaluation.report import write_report

        write_report(arguments.folders, arguments.html, arguments.metrics)
        print(f"Comparison: {arguments.html}")
        return 0
    if arguments.difference:
        if len(arguments.folders) != 2:
            raise ValueError(f"--difference compares two folders, not {len(arguments.folders)}")
        ours, theirs = arguments.folders
        print("".join(difference_lines(ours, theirs, arguments.metrics)), end="")
        return 0
    results = joined([read_summary(folder) for folder in arguments.folders])
    for benchmark in dict.fromkeys(name for result in results for name in result.settings):
        stated = {result.name: result.settings.get(benchmark, {}).get("convention") for result in results}
        if differing := conventions_apart(stated):
            values = ", ".join(f"{value} ({method})" for method, value in next(iter(differing.values())).items())
            log.warning(
                f"{benchmark}: not measured alike, so that values cannot be compared: {next(iter(differing))} is {values}"
            )
    print(FORMATS[arguments.format](results, arguments.metrics), end="")
    return 0
