"""merge the results of many runs into one table, with intervals, costs and ranks, and one page"""

from __future__ import annotations

import argparse
from pathlib import Path


def main(argv: list[str]) -> int:
    """Print the leaderboard, and write it as a page where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal leaderboard",
        description="Merge results into one table: models as rows, best mean rank first, benchmarks as columns. Each value "
        "has its 95 % interval over bootstrap resamples of the images; behind them stand dollars, tokens and seconds, the "
        "share of malformed responses, and how these were read. Folders of one model are one row. What was not measured "
        "alike is marked, and not compared. With --html, the same as a page that opens with nothing beside it, with the "
        "images on which two models differ most.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="what `lightning test` or `score` has written"
    )
    parser.add_argument(
        "--format", choices=("markdown", "csv", "latex"), default="markdown", help="by default markdown"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=(),
        metavar="NAME",
        help="columns, such as s_measure; by default the primary metric of each benchmark and what papers report",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write this page too, which must not be there yet")
    parser.add_argument(
        "--worst",
        nargs=2,
        default=(),
        metavar=("A", "B"),
        help="the two models whose images the page shows side by side; by default the first two rows",
    )
    arguments = parser.parse_args(argv)

    from lightning_sal.errors import UsageError
    from lightning_sal.evaluation.leaderboard import read_leaderboard
    from lightning_sal.evaluation.leaderboard_page import write_leaderboard
    from lightning_sal.evaluation.leaderboard_text import FORMATS
    from lightning_sal.pages.html import require_free

    if arguments.worst and not arguments.html:
        raise UsageError("--worst is shown on the page alone: give --html FILE too")
    if arguments.html:
        require_free(arguments.html)
    board = read_leaderboard(arguments.folders, arguments.metrics)
    if arguments.html:
        write_leaderboard(board, arguments.folders, arguments.html, arguments.worst)
    print(FORMATS[arguments.format](board), end="")
    if arguments.html:
        print(f"\nLeaderboard: {arguments.html}")
    return 0
