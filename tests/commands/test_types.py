"""The response types of saved rollouts, from the command line."""

import json
import re

import pytest
from PIL import Image

from lightning_sal.commands.types import main


def line(reward, confidence, advantage, *, step=0, rank=0, key="a", **more):
    known = {"step": step, "rank": rank, "task": "sod", "key": key, "index": 0, "text": "<think>", "terms": {}}
    return {**known, "reward": reward, "confidence": confidence, "advantage": advantage, **more}


def write(path, lines):
    path.write_text("".join(json.dumps(fields) + "\n" for fields in lines))
    return str(path)


def cells(printed):
    """Type, or all -> what stands in its column, by row."""
    rows = [[cell.strip() for cell in re.split("[│┃]", row)[1:-1]] for row in printed.splitlines() if row[:1] in "│┃"]
    names, *columns = zip(*filter(None, rows), strict=True)
    return {column[0]: dict(zip(names[1:], column[1:], strict=True)) for column in columns}


def test_shares_and_means_by_hand(tmp_path, capsys):
    """Rewards 1, 1, 0, 0 have the mean 0.5, confidences 0.2, 0.4, 0.8, 0.2 the mean 0.4."""
    lines = [line(1, 0.2, 3, key="a"), line(1, 0.4, 4, key="b"), line(0, 0.8, -5, key="c"), line(0, 0.2, 1, key="d")]
    assert main([write(tmp_path / "a.jsonl", lines)]) == 0
    printed = capsys.readouterr().out
    assert "4 responses; high: reward ≥ 0.5, confidence ≥ 0.4" in printed
    found = cells(printed)
    rows = ["share", "reward", "confidence", "as trained", "CGPO"]
    assert {name: [column[row] for row in rows] for name, column in found.items()} == {
        "LrLc": ["25.0 %", "0.000", "0.200", "+1.000", "-0.200"],
        "LrHc": ["25.0 %", "0.000", "0.800", "-5.000", "-0.800"],
        "HrLc": ["25.0 %", "1.000", "0.200", "+3.000", "+0.800"],
        "HrHc": ["25.0 %", "1.000", "0.400", "+4.000", "+0.600"],
        "all": ["100.0 %", "0.500", "0.400", "+0.750", "+0.100"],
    }
    assert found["LrHc"]["CGPO centred"] == "-0.900"
    assert found["HrLc"]["BatchLOO"] == "+0.667"
    assert "No prompt has two responses at a step: GRPO, Dr.GRPO, RLOO left out." in printed


def test_a_type_without_responses_is_blank_and_given_thresholds_hold(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [line(0.9, 0.9, 0), line(0.6, 0.9, 0, key="b")])
    assert main([path, "--reward-threshold", "0.9", "--confidence-threshold", "0.5"]) == 0
    found = cells(capsys.readouterr().out)
    assert (found["HrHc"]["share"], found["LrHc"]["share"]) == ("50.0 %", "50.0 %")
    assert found["HrLc"].pop("share") == "0.0 %"
    assert set(found["HrLc"].values()) == {""}


def test_groups_are_the_responses_to_one_prompt_at_one_step_of_one_rank_and_file(tmp_path, capsys):
    """RLOO of rewards 1 and 0 to one prompt is +1 and -1; every other pair here differs in step, rank, key or file."""
    pair = [line(1, 0.5, 0), line(0, 0.5, 0)]
    others = [line(1, 0.5, 0, step=1), line(1, 0.5, 0, rank=1), line(1, 0.5, 0, key="b"), line(0, 0.5, 0, task="sis")]
    files = [write(tmp_path / "a.jsonl", pair + others), write(tmp_path / "b.jsonl", [line(0, 0.5, 0)])]
    assert main(files) == 0
    found = cells(capsys.readouterr().out)
    assert (found["HrHc"]["RLOO"], found["LrHc"]["RLOO"]) == ("+1.000", "-1.000")
    assert (found["HrHc"]["Dr.GRPO"], found["LrHc"]["Dr.GRPO"]) == ("+0.500", "-0.500")
    assert found["all"]["RLOO"] == "+0.000"


def test_a_step_is_that_of_all_processes_of_a_run(tmp_path, capsys):
    """Rewards 1 and 0 of two processes at step 0 are compared; a second run in another folder has one response a step."""
    (tmp_path / "other").mkdir()
    files = [write(tmp_path / f"rollouts-{rank}.jsonl", [line(1 - rank, 0.5, 0, rank=rank)]) for rank in range(2)]
    assert main([*files, write(tmp_path / "other" / "rollouts.jsonl", [line(0, 0.5, 0)])]) == 0
    found = cells(capsys.readouterr().out)
    assert (found["HrHc"]["BatchLOO"], found["LrHc"]["BatchLOO"]) == ("+1.000", "-0.500")


def test_the_figure_is_written_and_never_overwritten(tmp_path, capsys):
    path, picture = write(tmp_path / "a.jsonl", [line(1, 0.2, 3), line(0, 0.8, -5, key="b")]), tmp_path / "types.png"
    assert main([path, "--figure", str(picture)]) == 0
    assert Image.open(picture).width > 800
    before = picture.read_bytes()
    with pytest.raises(FileExistsError, match=r"types\.png: there is such a file already"):
        main([path, "--figure", str(picture)])
    assert picture.read_bytes() == before


def test_an_unfinished_last_line_is_left_out_and_said(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", [line(1, 0.2, 3), line(0, 0.8, -5, key="b")])
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps(line(1, 0.9, 9))[:-9])
    assert main([path]) == 0
    shown = capsys.readouterr()
    assert "2 responses" in shown.out
    assert shown.err == f"{path}:3: the last line is unfinished and left out\n"


@pytest.mark.parametrize("damaged", ['{"step": 0}', "{", "[]", json.dumps(line(None, 0.5, 0))])
def test_a_damaged_line_is_named(tmp_path, damaged):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line(1, 0.2, 3)) + f"\n{damaged}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: not a line of RolloutWriter"):
        main([str(path)])


def test_no_rollouts_are_refused(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match="there are no rollouts"):
        main([str(tmp_path / "a.jsonl")])
