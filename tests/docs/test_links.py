"""Links. Those within docs/ are checked by `mkdocs build --strict`; these are the others. None is followed outside."""

import re
from urllib.parse import urlsplit

import pytest
from markdown.extensions.toc import slugify

from tests.docs.pages import PAGES, ROOT, in_checkout, name, prose

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
OUTSIDE_THE_SITE = [page for page in PAGES if not page.is_relative_to(ROOT / "docs")]


def links(page):
    return LINK.findall(prose(page.read_text()))


@in_checkout
@pytest.mark.parametrize("page", OUTSIDE_THE_SITE, ids=name)
def test_links_to_files_and_headings_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        if anchor:
            headings = {slugify(heading, "-") for heading in HEADING.findall(prose(target.read_text()))}
            assert anchor in headings, f"{name(page)}: {link}: the headings there are {sorted(headings)}"


@in_checkout
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_to_the_outside_are_well_formed(page):
    for link in links(page):
        if "://" in link:
            parts = urlsplit(link)
            assert (parts.scheme, "." in (parts.hostname or "")) == ("https", True), f"{name(page)}: {link}"
