"""The papers are named where people look for them, and abbreviations are written out on each page that uses them."""

import re

import pytest
import yaml

from tests.docs.pages import PAGES, ROOT, in_checkout, name, prose

RECIPES = ["cgpo.yaml", "sft.yaml", "segmenter.yaml", "test.yaml", "grpo/*", "dr_seg/**/*.yaml", "alignment/*"]
ABBREVIATION = re.compile(r"^\*\[(.+)\]: (.+)$", re.MULTILINE)
CODE_OR_TARGET = re.compile(r"`[^`]*`|\]\([^)]*\)")


@pytest.fixture(scope="module")
def papers() -> set[str]:
    """The arXiv numbers of CITATION.cff."""
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    return {reference["url"].removeprefix("https://arxiv.org/abs/") for reference in references}


@in_checkout
@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/results.md"])
def test_the_pages_that_people_meet_first_name_every_paper(page, papers):
    text = (ROOT / page).read_text()
    assert papers
    assert {paper for paper in papers if f"https://arxiv.org/abs/{paper}" not in text} == set()


@in_checkout
def test_every_recipe_names_its_paper(papers):
    for config in (file for pattern in RECIPES for file in (ROOT / "conf").glob(pattern)):
        head = "".join(line for line in config.read_text().splitlines(keepends=True) if line.startswith("#"))
        assert any(f"arXiv {paper}" in head for paper in papers), f"{name(config)}: name the paper in its head"


@in_checkout
@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "api"], ids=name)
def test_a_page_writes_out_the_abbreviations_that_it_uses(page):
    text = " ".join(CODE_OR_TARGET.sub("", prose(page.read_text())).split())
    meanings = ABBREVIATION.findall((ROOT / "docs/abbreviations.md").read_text())
    used = {short: meaning for short, meaning in meanings if re.search(rf"(?<![\w.-]){short}(?!\w)", text)}
    missing = {short: meaning for short, meaning in used.items() if meaning.lower() not in text.lower()}
    assert meanings
    assert not missing, f"{name(page)}: write out at first use: {missing}"
