"""What the pages show runs: their commands and their Python, page by page, in the order in which a reader meets it."""

import io
import os
import re
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

from lightning_sal.cli import main
from tests.docs.elsewhere import ELSEWHERE, elsewhere
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands, in_checkout, name, place_exists, prose
from tests.docs.workspace import SERVER

LANGUAGES = {"bash", "console", "python", "yaml", "json", "text", ""}  # "" and text are shown, and never commands
VARIABLE = re.compile(r"([A-Z_]+)=(.*)")
COMMAND = re.compile(r"^( {4,}|\t)(uv run |\$ )?(lightning(-sal)?|python|pip|uv) ", re.MULTILINE)


@in_checkout
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_all_that_a_page_shows_runs(page, workspace, server, monkeypatch):
    namespace = {"__name__": name(page)}
    failures = []
    for block in blocks(page.read_text()):
        if block.included:  # a file of examples/, which tests/examples runs
            continue
        if block.language == "python" and (fault := run_python(block, page, namespace)):
            failures.append(fault)
        if block.language not in ("bash", "console"):
            continue
        for line, words in commands(block):
            words = [word.replace(SERVER, f"{server.url}/v1") for word in words]
            shown_only = block.language == "console"
            if elsewhere(words) is None and (fault := run_command(words, shown_only, monkeypatch)):
                failures.append(f"{name(page)}:{line}: {' '.join(words)}\n    {fault}")
    assert not failures, "\n" + "\n".join(failures)


def run_python(block: Block, page: Path, namespace: dict) -> str | None:
    """Why a block fails, or None; what it defines stays for the page's next one."""
    code = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
    try:
        with redirect_stdout(io.StringIO()):
            exec(compile(code, name(page), "exec"), namespace)
    except Exception:
        return f"{name(page)}:{block.line}: python block\n{traceback.format_exc()}"
    return None


def run_command(words: list[str], shown_only: bool, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Run a command in this process as a shell would; why it fails, or None."""
    words = words[2:] if words[:2] == ["uv", "run"] else words
    while found := VARIABLE.fullmatch(words[0]):
        monkeypatch.setenv(*found.groups())
        if found[1] == "PYTHONPATH":
            monkeypatch.syspath_prepend(Path(found[2]).resolve())
        words = words[1:]
    program, *argv = words
    if program == "cd" and not shown_only:
        os.chdir(argv[0])
        return None
    if program not in ("lightning", "lightning-sal") or shown_only:
        return "is not run here, and tests/docs/elsewhere.py does not say where it is"
    argv = [path for word in argv for path in expanded(word)]
    errors = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(errors):
            code = main(argv)
    except SystemExit as stop:  # of --help
        code = stop.code
    except Exception:
        return traceback.format_exc()
    return f"exit code {code}: {errors.getvalue().strip()[-600:]}" if code else None


def expanded(word: str) -> list[str]:
    """The paths that a shell makes of a word; the word itself where it matches none."""
    return (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]


@in_checkout
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_hides_from_the_test_above(page):
    text = page.read_text()
    languages = {block.language for block in blocks(text)}
    assert languages <= LANGUAGES, f"{name(page)}: blocks of {languages - LANGUAGES}; known are {LANGUAGES}"
    hidden = COMMAND.search(prose(text))
    assert hidden is None, f"{name(page)}: put {hidden[0].strip()!r} and what follows into a fenced block"


@in_checkout
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_is_yaml_and_its_classes_exist(page):
    for block in blocks(page.read_text()):
        if block.language == "yaml" and not block.included:
            for path in class_paths(yaml.safe_load(block.text)):
                assert place_exists(path), f"{name(page)}:{block.line}: no {path}"


def class_paths(node):
    if isinstance(node, dict):
        if "class_path" in node:
            yield node["class_path"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from class_paths(child)


@in_checkout
@pytest.mark.parametrize(("file", "phrase"), sorted({(file, phrase) for _, file, phrase in ELSEWHERE}))
def test_what_runs_elsewhere_is_there(file, phrase):
    place = ROOT / file
    files = [place] if place.is_file() else sorted(place.glob("*.py"))
    assert any(phrase in each.read_text() for each in files), f"{file} does not speak of {phrase!r}"
