"""The page of a comparison: its numbers are those of tables, what it lacks is said, and it needs nothing beside it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lightning_sal.commands import table
from lightning_sal.evaluation.report import write_report
from lightning_sal.evaluation.results import Results, ResultsWriter, measures_of, read_summary
from lightning_sal.evaluation.tables import difference_lines, markdown
from lightning_sal.pages.charts import BOTTOM, LEFT, RIGHT, TOP
from tests.evaluation.parts import Page, results, row

SOD = {"A": [0.9, 0.8, 0.2, 0.7], "B": [0.5, 0.9, 0.4, 0.6]}
CURVES = {
    "threshold": [0.0, 0.5, 1.0],
    "precision": [0.0, 0.5, 1.0],
    "recall": [1.0, 0.5, 0.0],
    "f_measure": [0.0, 1.0, 0.25],
}


def two(tmp_path: Path, **more) -> list[Path]:
    return [
        results(tmp_path / name, name, {"ECSSD": [row(n, value) for n, value in enumerate(values)]}, **more)
        for name, values in SOD.items()
    ]


def page_of(folders, tmp_path, *metrics) -> Page:
    write_report(folders, tmp_path / "page.html", metrics)
    return Page(tmp_path / "page.html")


def test_the_table_is_that_of_the_command(tmp_path):
    folders = two(tmp_path)
    write_report(folders, tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    heads, _, *lines = markdown([read_summary(folder) for folder in folders]).splitlines()
    assert heads == "| method | ECSSD S | ECSSD MAE |"
    body = re.search(r'<table class="sortable">.*?<tbody>(.*?)</tbody>', source)[1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", each) for each in re.findall(r"<tr>(.*?)</tr>", body)]
    bold = [[cell.replace("<strong>", "**").replace("</strong>", "**") for cell in each] for each in rows]
    assert [f"| {' | '.join(each)} |" for each in bold] == lines
    assert re.findall(r'data-first="(\w+)">([\w ]+) [↑↓]', source) == [("descending", "S"), ("ascending", "MAE")]


def test_intervals_are_those_of_the_command(tmp_path):
    folders = two(tmp_path)
    words = page_of(folders, tmp_path).words
    for line, heading in zip(difference_lines(*folders), ("S", "MAE"), strict=True):
        mean, interval = re.search(r"= (\S+), 95 % (\[.*?\])", line).groups()
        assert f"{heading} A − B {mean} {interval} not told apart 4 0" in words
    assert "A − B +0.0500" in words  # (0.4 - 0.1 - 0.2 + 0.1) / 4


def test_better_is_said_by_the_direction_of_the_measure(tmp_path):
    """B is above A by 0.1 on every image, so that its MAE is lower on every one."""
    folders = [
        results(tmp_path / name, name, {"ECSSD": [row(n, 0.1 * n + more) for n in range(5)]})
        for name, more in (("A", 0.2), ("B", 0.3))
    ]
    words = page_of(folders, tmp_path).words
    assert "S A − B -0.1000 [-0.1000, -0.1000] B is better 5 0" in words
    assert "MAE A − B +0.0250 [+0.0250, +0.0250] B is better 5 0" in words


def test_curves_are_drawn_of_the_folders_that_have_them(tmp_path):
    folders = two(tmp_path)
    (folders[0] / "curves.json").write_text(json.dumps({"ECSSD": CURVES}))
    page = page_of(folders, tmp_path)
    middle = f"{(LEFT + RIGHT) / 2},{(TOP + BOTTOM) / 2}"
    lines = [line["points"] for line in page.of("polyline")]
    assert lines == [
        f"{RIGHT}.0,{BOTTOM}.0 {middle} {LEFT}.0,{TOP}.0",  # precision over recall
        f"{LEFT}.0,{BOTTOM}.0 {(LEFT + RIGHT) / 2},{TOP}.0 {RIGHT}.0,{BOTTOM - (BOTTOM - TOP) / 4}",  # F over threshold
    ]
    assert "A , precision 0.500 and recall 0.500 where F is largest, at threshold 0.500" in page.words.replace(
        "A,", "A ,"
    )
    assert "at most 1.000, at threshold 0.500" in page.words
    assert "No curves of B: no curves.json in their folder has this benchmark." in page.words


def test_what_a_writer_has_written_is_read(tmp_path):
    """Rows and curves as `score` writes them, of which a group's images have one key."""
    folders = []
    for name, values in SOD.items():
        ResultsWriter.prepare(tmp_path / name)
        writer = ResultsWriter(tmp_path / name, {"ECSSD": "sod"})
        for number, value in enumerate(values):
            fields = {
                "benchmark": "ECSSD",
                "key": "group",
                "image": f"Imgs/{number}.jpg",
                "s_measure": value,
                "mae": 0.5,
            }
            writer.add(fields, lambda: {"photograph": Image.new("RGB", (4, 4))})
        writer.close()
        written = Results(
            name, {"ECSSD": "sod"}, {"ECSSD": {"s_measure": sum(values) / 4}}, measures_of({"ECSSD": "sod"})
        )
        writer.finish(written, {"ECSSD": CURVES})
        folders.append(tmp_path / name)
    page = page_of(folders, tmp_path)
    assert "MAE A − B +0.0000 [+0.0000, +0.0000] not told apart 4 0" in page.words
    assert len(page.of("polyline")) == 4  # two methods in two figures
    assert "No curves" not in page.words


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ([1], "and not an object"),
        ({"ECSSD": {"threshold": ["x"]}}, "a list of numbers"),
        ({"ECSSD": {"threshold": [float("nan")]}}, "a list of numbers"),
        ({"ECSSD": {"threshold": [0, 1], "recall": [1]}}, r"of one length, which is not \[1, 2\]"),
        ({"ECSSD": {"threshold": []}}, "of one length"),
    ],
)
def test_curves_that_are_none_are_refused(tmp_path, curves, said):
    folders = two(tmp_path, curves=curves)
    with pytest.raises(ValueError, match=rf"curves\.json.*{said}"):
        write_report(folders, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_quantiles_of_single_images(tmp_path):
    """Of 0.2, 0.7, 0.8, 0.9, by hand: quarters of the way between neighbours."""
    words = page_of(two(tmp_path), tmp_path).words
    assert "A 4 0.650 0.275 0.575 0.750 0.825 0.885" in words


def pictured(tmp_path: Path) -> list[Path]:
    """Photographs red, ground truths green, predictions of A blue, of B none; the photograph of image 3 is gone."""
    for folder, colour in (("Imgs", "red"), ("truth", "green"), ("maps", "blue")):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.new("RGB", (300, 200), colour).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "Imgs/3.png").unlink()
    folders = []
    for name, values in SOD.items():
        files = [
            {"image": tmp_path / f"Imgs/{n}.png", "truth": tmp_path / f"truth/{n}.png"}
            | ({"prediction": tmp_path / f"maps/{n}.png"} if name == "A" else {})
            for n in range(4)
        ]
        rows = [row(n, value) | files[n] for n, value in enumerate(values)]
        folders.append(results(tmp_path / name, name, {"ECSSD": rows}))
    return folders


def test_best_worst_and_differing_images_have_their_pictures(tmp_path):
    """A: 2 and 3 are its worst, 1 and 0 its best. B is better than A on 2 (0.2) and 1 (0.1), A on 0 (0.4) and 3 (0.1)."""
    page = page_of(pictured(tmp_path), tmp_path)
    alts = [image["alt"] for image in page.of("img")]
    assert alts[:4] == [f"Imgs/0.png: {what}" for what in ("photograph", "ground truth", "A")] + [
        "Imgs/3.png: ground truth"
    ]
    order = re.findall(r"Imgs/(\d)\.png S", page.words)
    assert order == ["0", "3", "2", "1", "2", "3", "0", "1", "2", "0", "1", "3"]
    assert "A is better by most: photograph ground truth A Imgs/0.png S A 0.900 B 0.500" in page.words
    assert "Where the two best, A and B , differ most" in page.words.replace("B, d", "B , d")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.of("img"))
    assert "Not shown: 1 file that cannot be read from where this page was made." in page.words


def test_images_that_one_alone_has_are_counted_and_left_out(tmp_path):
    ours, theirs = ([row(n, value) for n, value in enumerate(values)] for values in SOD.values())
    folders = [
        results(tmp_path / "A", "A", {"ECSSD": ours[:3]}),
        results(tmp_path / "B", "B", {"ECSSD": [*theirs[1:], row(9, 0.5)]}),
    ]
    words = page_of(folders, tmp_path).words
    assert re.search(r"S A − B -0\.1500 \[.*?\] \w.*? 2 3 MAE", words)  # 0.8 - 0.9 and 0.2 - 0.4; images 0, 3 and 9
    assert f"A ECSSD salient object detection {tmp_path / 'A'} none stated 3 2" in words
    assert f"B ECSSD salient object detection {tmp_path / 'B'} none stated 4 1" in words


def test_methods_without_a_common_image_are_named(tmp_path):
    folders = [results(tmp_path / name, name, {"ECSSD": [row(n, 0.5)]}) for n, name in enumerate("AB")]
    assert "No image is measured by both A and B." in page_of(folders, tmp_path).words


def test_rows_of_one_image_are_paired_only_where_they_are_as_many(tmp_path):
    """Three questions on image 0 for A and two for B: which is which, nothing says."""
    folders = [
        results(tmp_path / name, name, {"ECSSD": [row(0, 0.5)] * times + [row(1, value)]})
        for name, times, value in (("A", 3, 0.75), ("B", 2, 0.5))
    ]
    words = page_of(folders, tmp_path).words
    assert "S A − B +0.2500 [+0.2500, +0.2500] A is better 1 0" in words
    assert "Left out as well: 1 image with several rows, whose number differs." in words


def test_instances_and_boxes_by_their_own_measures(tmp_path):
    """SIS is ranked by IASM; boxes by F1; and a JSONL of counts that has no F1 by what it has."""
    tasks = {"ILSO": "sis", "COCO": "detection", "Pixmo": "perception"}
    folders = [
        results(
            tmp_path / name,
            name,
            {
                "ILSO": [{"key": str(n), "image": f"I/{n}.jpg", "iasm": value + n / 10} for n in range(3)],
                "COCO": [{"key": str(n), "image": f"C/{n}.jpg", "f1": value, "precision": 0.5} for n in range(3)],
                "Pixmo": [{"key": "q", "image": "", "giou": "", "count_accuracy": value}],
            },
            tasks=tasks,
        )
        for name, value in (("A", 0.5), ("B", 0.25))
    ]
    page = page_of(folders, tmp_path)
    assert "IASM A − B +0.2500 [+0.2500, +0.2500] A is better 3 0" in page.words
    assert "F1 A − B +0.2500 [+0.2500, +0.2500] A is better 3 0" in page.words
    assert "count accuracy A − B +0.2500 [+0.2500, +0.2500] A is better 1 0" in page.words
    assert "precision A − B" not in page.words
    assert [link["href"] for link in page.of("a")] == ["#benchmark-0", "#benchmark-1", "#benchmark-2"]


def test_metrics_that_are_asked_for(tmp_path):
    folders = two(tmp_path)
    page = page_of(folders, tmp_path, "mae")
    assert "ECSSD method MAE ↓ A" in page.words
    assert "MAE A − B" in page.words
    with pytest.raises(ValueError, match="no results have the metric 'maee'"):
        write_report(folders, tmp_path / "b.html", ["maee"])


def test_settings_stand_beside_the_folder(tmp_path):
    folders = two(tmp_path, settings={"ECSSD": {"temperature": 0.5, "seed": 3}})
    assert f"{tmp_path / 'A'} temperature 0.5, seed 3 4 0" in page_of(folders, tmp_path).words


def test_methods_that_are_not_measured_alike_are_told(tmp_path):
    ours, matlab = {"name": "ours", "normalize": "min-max", "thresholds": 256}, {"name": "matlab", "normalize": "max"}
    for number, (theirs, said) in enumerate(((ours, False), (matlab | {"thresholds": 256}, True))):
        folders = [
            results(
                tmp_path / f"{name}{number}", name, {"ECSSD": [row(0, 0.5)]}, settings={"ECSSD": {"convention": each}}
            )
            for name, each in (("A", ours), ("B", theirs))
        ]
        write_report(folders, tmp_path / f"{number}.html")
        words = Page(tmp_path / f"{number}.html").words
        assert "convention (name ours, normalize min-max, thresholds 256)" in words
        assert ("Not measured alike" in words) == said
    assert "cannot be compared: normalize min-max (A), max (B)." in words


def test_folders_of_one_method_are_joined_and_one_method_is_enough(tmp_path):
    folders = [results(tmp_path / name, "A", {name: [row(0, 0.5), row(1, 0.75)]}) for name in ("X", "Y")]
    page = page_of(folders, tmp_path)
    assert page.words.startswith("1 method on 2 benchmarks 1 method on 2 benchmarks A X Y")
    assert "differ" not in page.words
    with pytest.raises(ValueError, match="two folders hold results of 'A' on X"):
        write_report([folders[0], folders[0]], tmp_path / "b.html")


def test_names_cannot_break_the_page_and_nothing_is_loaded(tmp_path):
    said = "\"'><script>alert(1)</script><img src=http://x/ onerror=a></style>&#10;"
    bad = said.replace("/", "")
    folders = [
        results(
            tmp_path / name,
            said + name,
            {bad: [row(n, 0.5 + n / 10) | {"image": f"{said}{n}", "key": said, "truth": said} for n in range(2)]},
            tasks={bad: "sod"},
            curves={bad: CURVES},
            settings={bad: {said: said}},
        )
        for name in "AB"
    ]
    page = page_of(folders, tmp_path)
    assert len(page.of("script")) == 1
    assert all("onerror" not in attrs for attrs in page.of("img"))
    assert said + "A" in "".join(page.text)
    for tag, attrs in page.tags:
        assert not {"src", "href"} & attrs.keys() or (tag, attrs.get("href", "")[:1]) == ("a", "#"), attrs
    assert not re.search(r"url\(|@import|fetch|XMLHttp", (tmp_path / "page.html").read_text())


def test_everything_that_is_drawn_is_said_in_words(tmp_path):
    page = page_of(pictured(tmp_path), tmp_path)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.of("svg"))
    assert all(image["alt"] for image in page.of("img"))
    assert page.of("html")[0]["lang"] == "en"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("0.9", "much"), r"ECSSD\.csv:2: s_measure is 'much', which is no number"),
        (lambda text: text.replace("0.9", "nan"), r"ECSSD\.csv:2: s_measure is 'nan'"),
        (lambda text: text.replace("image", "picture"), r"ECSSD\.csv:2: no row of results"),
        (lambda text: text + "4,ECSSD", r"ECSSD\.csv:6: no row of results"),
    ],
)
def test_rows_that_are_none_are_named(tmp_path, change, said):
    folders = two(tmp_path)
    file = folders[0] / "ECSSD.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=said):
        write_report(folders, tmp_path / "page.html")


def test_no_file_is_written_over(tmp_path):
    folders = two(tmp_path)
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(FileExistsError, match=r"page\.html is there already"):
        write_report(folders, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "mine"


def test_the_command_writes_the_page_without_heavy_libraries(tmp_path):
    folders = [str(folder) for folder in two(tmp_path)]
    code = f"""
import sys
from lightning_sal.cli import main
assert main(["table", *{folders!r}, "--html", "out/page.html"]) == 0
print([name for name in ("torch", "torchmetrics", "lightning", "matplotlib", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["Comparison: out/page.html", "[]"], done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["page.html"]
    Page(tmp_path / "out/page.html")


def test_a_page_and_lines_of_differences_are_not_asked_for_at_once(capsys):
    with pytest.raises(SystemExit):
        table.main(["A", "B", "--difference", "--html", "page.html"])
    assert "not allowed with" in capsys.readouterr().err
