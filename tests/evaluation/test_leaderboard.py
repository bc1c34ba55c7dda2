"""The leaderboard: its numbers by hand, what it doesn't compare, and its page in a browser."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands import leaderboard as command
from lightning_sal.errors import UsageError
from lightning_sal.evaluation.bootstrap import bootstrap
from lightning_sal.evaluation.leaderboard import read_leaderboard
from lightning_sal.evaluation.leaderboard_page import write_leaderboard
from lightning_sal.evaluation.leaderboard_text import comma_separated, latex, markdown
from tests.evaluation.parts import Page, results, row

SOD = {"A": [0.9, 0.8, 0.2, 0.7], "B": [0.5, 0.9, 0.4, 0.6], "C": [0.9, 0.8, 0.2, 0.7]}
SIS = {"A": [0.5, 0.5], "B": [0.75, 0.75]}


def sod(values, **more) -> list[dict]:
    return [row(n, value, **more) for n, value in enumerate(values)]


def sis(values) -> list[dict]:
    return [{"key": str(n), "image": f"I/{n}.jpg", "matched_s": value, "iasm": value} for n, value in enumerate(values)]


def three(tmp_path: Path) -> list[Path]:
    """A and B on ECSSD and ILSO, in a folder each; C on ECSSD alone, with the values of A."""
    folders = [results(tmp_path / f"{name}-sod", name, {"ECSSD": sod(values)}) for name, values in SOD.items()]
    tasks = {"ILSO": "sis"}
    return folders + [
        results(tmp_path / f"{name}-sis", name, {"ILSO": sis(values)}, tasks=tasks) for name, values in SIS.items()
    ]


def cells(text: str) -> dict[str, list[str]]:
    """First cell of a row of a Markdown table -> the others."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {name.strip(): [cell.strip() for cell in own] for name, *own in lines}


def test_folders_of_one_model_are_one_row_and_what_it_lacks_is_empty(tmp_path):
    rows = cells(markdown(read_leaderboard(three(tmp_path))))
    assert rows["method"] == ["rank", "ECSSD S", "ECSSD MAE", "ILSO matched S", "ILSO IASM"]
    assert rows["C"][3:] == ["", ""]
    assert rows["B"][3] == "**0.750** [0.750, 0.750]"
    assert rows["A"][3] == "0.500 [0.500, 0.500]"


def test_ranks_are_over_the_benchmarks_that_all_have_and_equal_values_share_one(tmp_path):
    """On ECSSD A and C have S 0.65, and B 0.6: ranks (1 + 2) / 2, the same, and 3. ILSO is not C's."""
    board = read_leaderboard(three(tmp_path))
    assert {line.result.name: line.rank for line in board.lines} == {"A": 1.5, "C": 1.5, "B": 3.0}
    assert [line.result.name for line in board.lines] == ["A", "C", "B"]
    assert board.notes == ["Ranks are over ECSSD alone: not all rows have, or are measured alike on, ILSO."]


def test_the_best_of_a_column_is_by_the_direction_of_its_measure(tmp_path):
    """The more S, the less MAE: (1 - S) / 4 here."""
    rows = cells(markdown(read_leaderboard(three(tmp_path))))
    assert rows["A"][1].startswith("**0.650**")
    assert rows["A"][2].startswith("**0.088**")
    assert rows["B"][1].startswith("0.600")
    assert rows["B"][2].startswith("0.100")


def test_intervals_are_those_of_the_images_and_there_are_none_of_what_is_no_mean_over_them(tmp_path):
    metrics = {"ECSSD": {"s_measure": 0.65, "f_max": 0.5, "mae": 0.3}}  # the mean of the images' MAE is 0.0875
    board = read_leaderboard([results(tmp_path / "A", "A", {"ECSSD": sod(SOD["A"])}, metrics)])
    (line,) = board.lines
    ((_, low, high),) = bootstrap(np.array(SOD["A"])[:, None])
    assert line.cells["ECSSD", "s_measure"].interval == pytest.approx((low, high))
    assert line.cells["ECSSD", "f_max"].interval is None
    assert line.cells["ECSSD", "mae"].interval is None
    assert board.notes == ["ECSSD: no interval, since the value is no plain mean over its images."]
    assert line.cells["ECSSD", "mae"].notes == (1,)


def test_what_the_answers_took(tmp_path):
    """A: 2 dollars on two benchmarks of 4 and 2 images, 60 tokens in for 6 images; the seconds of ECSSD alone."""
    usage = {"samples": 4, "cost": 1.5, "input_tokens": 40, "seconds": 8.0}
    said = [{"malformed": reason} for reason in ("", "no answer", "", "")]
    rows = [row(n, 0.5) | said[n] for n in range(4)]
    folders = [
        results(tmp_path / "a", "A", {"ECSSD": rows}, usage={"ECSSD": usage}),
        results(
            tmp_path / "b",
            "A",
            {"ILSO": sis([0.5, 0.5])},
            tasks={"ILSO": "sis"},
            usage={"ILSO": {"samples": 2, "cost": 0.5, "input_tokens": 20}},
        ),
        results(tmp_path / "c", "maps", {"ECSSD": [row(n, 0.5) for n in range(4)]}),
    ]
    board = read_leaderboard(folders)
    ours, theirs = board.lines
    costs = {name: cell.value for name, cell in ours.costs.items()}
    assert costs == {"cost": 2.0, "input_tokens": 10.0, "seconds": 2.0, "malformed": 0.25}
    assert theirs.costs == {}
    partial = "Costs and malformed are over ECSSD alone."
    assert {name for name, cell in ours.costs.items() if cell.notes} == {"seconds", "malformed"}
    assert [board.notes[number - 1] for number in ours.costs["seconds"].notes] == [partial]
    table = cells(markdown(board))
    assert table["method"][-4:] == ["dollars", "tokens in / image", "s / image", "malformed"]
    assert table["maps"][-4:] == ["", "", "", ""]


def test_what_was_measured_on_other_images_is_marked_and_neither_best_nor_ranked(tmp_path):
    folders = [
        results(tmp_path / "A", "A", {"ECSSD": sod([0.9, 0.9])}),
        results(tmp_path / "B", "B", {"ECSSD": sod([0.5, 0.9, 0.4])}),
        results(tmp_path / "C", "C", {"ECSSD": sod([0.5, 0.6, 0.4])}),
        results(tmp_path / "D", "D", {"ECSSD": [row(n + 7, 1.0) for n in range(3)]}),
    ]
    board = read_leaderboard(folders, ["s_measure"])
    rows = cells(markdown(board))
    assert rows["A"][1].startswith("0.900¹")
    assert rows["B"][1].startswith("**0.600**")
    assert rows["D"][1].startswith("1.000²")
    assert all(line.rank is None for line in board.lines)
    assert board.notes == [
        "ECSSD: measured on 2 images, where the other rows have 3; not compared.",
        "ECSSD: measured on as many images, 3, but of other names; not compared.",
        "Ranks are given for none: not all rows have, or are measured alike on, ECSSD.",
    ]


def test_what_was_measured_by_another_convention_is_marked(tmp_path):
    ours, other = {"name": "ours", "normalize": "min-max"}, {"name": "x", "normalize": "max"}
    folders = [
        results(tmp_path / name, name, {"ECSSD": sod(SOD["A"])}, settings={"ECSSD": {"convention": each}})
        for name, each in (("A", ours), ("B", other), ("C", ours))
    ]
    board = read_leaderboard(folders)
    assert [line.cells["ECSSD", "s_measure"].best for line in board.lines] == [True, False, True]
    assert board.notes[0] == "ECSSD: by another convention, normalize max and not min-max; not compared."


def test_settings_of_responses_that_differ_are_noted_and_the_reading_has_a_column(tmp_path):
    settings = {"sampler": "Greedy", "temperature": 0.0, "reading": "strict"}
    folders = [
        results(tmp_path / name, name, {"ECSSD": sod(SOD["A"])}, settings={"ECSSD": settings | more})
        for name, more in (("A", {}), ("B", {"temperature": 1.0, "reading": "lenient"}), ("C", {}))
    ]
    board = read_leaderboard(folders)
    assert [line.reading for line in board.lines] == ["strict", "lenient", "strict"]
    assert [line.notes for line in board.lines] == [(), (1,), ()]
    assert board.notes == ["Responses came about otherwise: B: temperature 1.0; the other rows: temperature 0.0."]
    rows = cells(markdown(board))
    assert rows["method"][-1] == "reading"
    assert rows["B¹"][-1] == "lenient"


def test_latex_and_csv_hold_what_the_table_holds(tmp_path):
    board = read_leaderboard(three(tmp_path))
    text = latex(board)
    assert r"\multicolumn{2}{c}{ECSSD} & \multicolumn{2}{c}{ILSO} \\" in text
    assert r"method & rank & S & MAE & matched S & IASM \\" in text
    assert r"\textbf{0.650}" in text
    assert r"\textsuperscript{1} Ranks are over ECSSD alone" in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(board))))
    (value,) = (each for each in lines if (each["method"], each["metric"]) == ("B", "matched_s"))
    assert (value["benchmark"], value["value"], value["low"]) == ("ILSO", "0.75", "0.75")
    assert {each["value"] for each in lines if each["metric"] == "rank"} == {"1.5", "3.0"}


def test_a_summary_that_does_not_say_what_its_metrics_are_is_read(tmp_path):
    folder = results(tmp_path / "A", "A", {"X": [{"key": "0", "image": "", "own": 0.5}]}, tasks={"X": "not known here"})
    (line,) = read_leaderboard([folder], ["own"]).lines
    assert line.cells["X", "own"].value == 0.5


def test_ranks_of_two_benchmarks_are_averaged(tmp_path):
    """A and B on ECSSD: 1 and 2; on ILSO: 2 and 1."""
    board = read_leaderboard([folder for folder in three(tmp_path) if not folder.name.startswith("C")])
    assert [line.rank for line in board.lines] == [1.5, 1.5]
    assert board.ranked == {"ECSSD": "s_measure", "ILSO": "matched_s"}
    assert "by S of ECSSD and matched S of ILSO;" in board.about


def test_what_cannot_be_merged_is_said_in_a_line(tmp_path):
    folders = three(tmp_path)
    with pytest.raises(ValueError, match="two folders hold results of 'A' on ECSSD: give one of them, or rename"):
        read_leaderboard([folders[0], folders[0]])
    with pytest.raises(ValueError, match=r"no results have the metric 's_mesure'; did you mean s_measure\?"):
        read_leaderboard(folders, ["s_mesure"])
    with pytest.raises(FileNotFoundError, match="give a folder that `lightning test` or `score` has written"):
        read_leaderboard([tmp_path])


def test_words_of_the_command_that_do_not_fit_are_said(tmp_path):
    folders, page = [str(folder) for folder in three(tmp_path)], str(tmp_path / "page.html")
    with pytest.raises(UsageError, match="--worst is shown on the page alone"):
        command.main([*folders, "--worst", "A", "B"])
    with pytest.raises(UsageError, match=r"no row is called 'D'; there are A, C, B"):
        command.main([*folders, "--html", page, "--worst", "A", "D"])
    with pytest.raises(UsageError, match="compares two models, and 'A' is one"):
        command.main([*folders, "--html", page, "--worst", "A", "A"])
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(FileExistsError, match="not overwritten"):
        command.main([*folders, "--html", page])


def pictured(tmp_path: Path) -> list[Path]:
    """A and B on ECSSD with photographs, masks and words; the photograph of image 3 is gone."""
    for folder, colour in (("Imgs", "red"), ("truth", "green"), ("maps", "blue")):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.new("RGB", (300, 200), colour).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "Imgs/3.png").unlink()
    folders = []
    for name in "AB":
        rows = [
            row(n, value)
            | {place: tmp_path / f"{folder}/{n}.png" for place, folder in (("image", "Imgs"), ("truth", "truth"))}
            | {"prediction": tmp_path / f"maps/{n}.png", "expressions": f"{name} sees {n}", "malformed": ""}
            for n, value in enumerate(SOD[name])
        ]
        folders.append(results(tmp_path / name, name, {"ECSSD": rows}))
    return folders


def page_of(folders: list[Path], path: Path, *two: str) -> Page:
    write_leaderboard(read_leaderboard(folders), folders, path, two)
    return Page(path)


def test_the_page_holds_the_table_and_where_two_models_differ(tmp_path):
    """A is better by 0.4 on 0 and 0.1 on 3, B by 0.2 on 2 and 0.1 on 1."""
    page = page_of(pictured(tmp_path), tmp_path / "page.html")
    assert "A and B side by side ECSSD, by S" in page.words
    assert re.findall(r"(\w) is better by most", page.words) == ["A", "B"]
    assert re.findall(r"Imgs/(\d)\.png S", page.words) == ["0", "3", "2", "1"]
    assert "A 0.900, expressions: A sees 0 B 0.500, expressions: B sees 0" in page.words
    alts = [image["alt"] for image in page.of("img")]
    assert alts[:4] == [f"Imgs/0.png: {what}" for what in ("photograph", "ground truth", "A", "B")]
    assert alts[4:7] == [f"Imgs/3.png: {what}" for what in ("ground truth", "A", "B")]
    assert "Not shown: 1 file that cannot be read from where this page was made." in page.words


def test_masks_that_results_keep_are_shown_where_rows_name_no_files(tmp_path):
    """A keeps masks, of which two are of image 0 and 2; B keeps none, nor do the photographs exist."""
    kept = {number: base64.b64encode(png(number)).decode() for number in (0, 2)}
    folders = [results(tmp_path / name, name, {"ECSSD": sod(SOD[name])}) for name in "AB"]
    lines = [f"{n},{kept.get(n, '')},{kept.get(n, '')}" for n in range(4)]
    (folders[0] / "ECSSD.masks.csv").write_text("\n".join(["sample,truth,prediction", *lines, ""]))
    page = page_of(folders, tmp_path / "page.html")
    assert [image["alt"] for image in page.of("img")] == [
        f"Imgs/{n}.jpg: {what}" for n in (0, 2) for what in ("ground truth", "A")
    ]
    assert page.words.count("no picture of photograph, B") == 2
    assert page.words.count("no picture of photograph, ground truth, A, B") == 2
    (folders[0] / "ECSSD.masks.csv").write_text("\n".join(["sample,truth,prediction", *lines[:2], ""]))
    with pytest.raises(ValueError, match="ECSSD has 4 rows, and masks of 2"):
        page_of(folders, tmp_path / "b.html")


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), grey).save(file, "PNG")
    return file.getvalue()


def test_the_two_models_are_those_that_are_named(tmp_path):
    page = page_of(three(tmp_path), tmp_path / "page.html", "B", "A")
    assert "B and A side by side" in page.words
    assert "ILSO, by matched S" in page.words
    assert "C is better" not in page.words


def test_names_cannot_break_the_page_and_nothing_is_loaded(tmp_path):
    said = "\"'><script>alert(1)</script><img src=http://x/ onerror=a></style>&#10;"
    bad = said.replace("/", "")
    folders = [
        results(
            tmp_path / name,
            said + name,
            {bad: [row(n, 0.5 + n / 10) | {"image": f"{said}{n}", "key": said, "expressions": said} for n in range(n)]},
            tasks={bad: "sod"},
            settings={bad: {said: said + name, "reading": said}},
        )
        for name, n in (("A", 2), ("B", 3))
    ]
    page = page_of(folders, tmp_path / "page.html")
    assert len(page.of("script")) == 1
    assert said + "A" in "".join(page.text)
    for tag, attrs in page.tags:
        assert not {"src", "href"} & attrs.keys() or (tag, attrs.get("href", "")[:1]) == ("a", "#"), attrs
    assert not re.search(r"url\(|@import|fetch|XMLHttp", (tmp_path / "page.html").read_text())


def test_the_command_prints_and_writes_without_heavy_libraries(tmp_path):
    folders = [str(folder) for folder in three(tmp_path)]
    code = f"""
import sys
from lightning_sal.cli import main
assert main(["leaderboard", *{folders!r}, "--html", "out/page.html"]) == 0
print([name for name in ("torch", "torchmetrics", "lightning", "matplotlib", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    *lines, written, heavy = done.stdout.splitlines()
    assert (written, heavy) == ("Leaderboard: out/page.html", "[]"), done.stderr
    assert lines[2].startswith("| A | 1.50 | **0.650** [")
    Page(tmp_path / "out/page.html")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on PATH")
def test_a_browser_sorts_and_fits_a_telephone(tmp_path):
    from playwright.sync_api import sync_playwright

    page_of(three(tmp_path), tmp_path / "page.html")
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_context(offline=True, viewport={"width": 390, "height": 800}).new_page()
        page.goto((tmp_path / "page.html").as_uri())
        names = page.locator("table.sortable tbody th")
        assert names.all_inner_texts() == ["A", "C", "B"]
        page.get_by_role("button", name="matched S").click()
        assert names.all_inner_texts() == ["B", "A", "C"]  # C has none
        page.get_by_role("button", name="method").click()
        assert names.all_inner_texts() == ["A", "B", "C"]
        page.get_by_role("button", name="MAE").click()
        assert names.all_inner_texts()[-1] == "B"  # the least is the best
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
