"""The page of failures: what it shows of an image, where its files are, and that a browser sorts and searches it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_sal.pages.failures import Failure, failures_page
from lightning_sal.pages.outlines import colour
from lightning_sal.pages.pictures import of_masks
from lightning_sal.samples import ImageGroup, VisualPrompt
from lightning_sal.tasks.measures import Measure

MEASURES = {"s_measure": Measure("S"), "mae": Measure("MAE", lower_is_better=True)}
FAILURES = [
    Failure("1", "/home/me/set/a/1.jpg", {"s_measure": 0.1, "mae": 0.2}, {"expressions": "red cup", "malformed": ""}),
    Failure("2", "/home/me/set/b/2.jpg", {"s_measure": 0.3, "mae": 0.5}, {"expressions": "dog"}),
    Failure("3", "/home/me/set/b/3.jpg", {"s_measure": 0.4, "mae": 0.1}),
]
PAGE = failures_page("ours", {"ECSSD": FAILURES}, {"ECSSD": 9}, MEASURES)


def test_files_are_named_from_their_common_folder_numbers_by_name_and_words_where_there_are_some() -> None:
    assert "/home" not in PAGE
    assert "a/1.jpg" in PAGE
    assert "<dt>MAE</dt><dd>0.200</dd>" in PAGE
    assert "The 3 worst of 9, by S." in PAGE
    assert PAGE.count("expressions:") == 2
    assert "malformed:" not in PAGE
    assert "http" not in PAGE


def test_boxes_points_and_masks_are_drawn_and_nothing_found_is_said() -> None:
    image = torch.full((120, 160, 3), 90, dtype=torch.uint8)
    group = ImageGroup("k", "detection", (image,), question="q", boxes=(torch.tensor([[20.0, 20.0, 60.0, 60.0]]),))
    found = of_masks(group, None, [[VisualPrompt((30, 30, 80, 80), ((50, 50),), (1,))]])
    assert list(found) == ["photograph", "ground truth", "prediction"]
    scale = found["prediction"].width / 160
    assert found["prediction"].getpixel((round(50 * scale), round(50 * scale))) == colour(0)  # the point
    for name in ("ground truth", "prediction"):
        assert (np.asarray(found[name]) == colour(0)).all(-1).any()
    assert not (np.asarray(found["photograph"]) == colour(0)).all(-1).any()
    assert list(of_masks(group, None, [[]])) == ["photograph", "ground truth", "prediction: no box found"]
    empty = torch.zeros(1, 120, 160, dtype=torch.bool)
    assert "prediction: no mask found" in of_masks(group, (empty,))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on PATH")
def test_a_browser_sorts_and_searches_and_fits_a_telephone(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    file = tmp_path / "failures.html"
    file.write_text(PAGE, encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_context(offline=True, viewport={"width": 390, "height": 800}).new_page()
        page.goto(file.as_uri())
        names = page.locator(".failure:not([hidden]) h3")

        def shown() -> list[str]:
            return [text.split("/")[1][0] for text in names.all_inner_texts()]

        assert shown() == ["1", "2", "3"]
        page.get_by_label("Sort by").select_option(label="MAE")
        assert shown() == ["2", "1", "3"]  # the largest error is the worst
        page.get_by_label("best first").check()
        assert shown() == ["3", "1", "2"]
        page.get_by_label("Show").fill("dog")
        assert shown() == ["2"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
