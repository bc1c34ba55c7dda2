"""Where each word came from, on a page: a map a word, a figure a sentence and an answer, and nothing from elsewhere."""

import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.inference.words import Explanation, Part, sentence_places, word_places
from lightning_sal.pages.answer import answer_html
from lightning_sal.pages.gallery import Gallery
from lightning_sal.tasks import TASKS
from tests.pages.test_answer import Read, answer, picture, prediction


def explained(plain, shape=(4, 6)):
    """Part i of its kind has its peak in cell i of each image, the more the later it comes."""

    def parts(places):
        made = []
        for i, place in enumerate(places):
            values = torch.full(shape, -1.0)
            values.view(-1)[i % values.numel()] = 1 + i
            made.append(Part(plain.text[slice(*place)], place, (values,) * len(plain.group.images)))
        return tuple(made)

    read = TASKS[plain.group.task].parse(plain.text)
    words, sentences = word_places(plain.text, read), sentence_places(plain.text, read)
    return replace(plain, explanation=Explanation(parts(words), parts(sentences), parts(read.labels_at)))


def read_maps(attributes):
    """The pictures of the property --map."""
    return [picture(uri) for uri in re.findall(r"url\((data:[^)]*)\)", attributes["style"].partition("--map:")[2])]


def test_every_word_has_its_map_and_a_place_for_the_tab_key():
    found = explained(answer("Scene: red cat. It sits.", ["red cat", "dog"]))
    page = Read(answer_html(found))
    assert page.open == []
    words = [attributes for _, attributes in page.tags if attributes.get("class") == "word"]
    assert len(words) == len(found.explanation.words) == 5 + 3
    for number, attributes in enumerate(words):
        assert attributes["tabindex"] == "0"
        (drawn,) = read_maps(attributes)
        opacity = np.asarray(drawn.convert("RGBA"))[..., 3]
        assert opacity.shape == (4, 6)
        assert opacity.argmax() == number
        assert (opacity > 0).sum() == 1
    text = " ".join("".join(page.texts).split())
    assert "Scene: red cat. It sits. red cat dog" in text
    assert "8 logit" in text


def test_every_sentence_and_every_answer_has_a_figure():
    found = explained(answer("Scene: red cat. It sits.", ["red cat", "dog"]))
    page = Read(answer_html(found))
    names = [attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "img"]
    assert names == [f"map of: {name}" for name in ("Scene: red cat.", "It sits.", "red cat", "dog")]
    assert "".join(page.texts).count("2 logit") == 2


def test_images_of_a_group_stand_side_by_side_each_with_its_map():
    plain = answer("About: a.", ["[semantic] thing"], task="cosod", images=2)
    wide = torch.full((40, 120, 3), 9, dtype=torch.uint8)
    found = explained(replace(plain, group=replace(plain.group, images=(plain.group.images[0], wide))))
    page = Read(answer_html(found))
    (looks,) = [attributes["style"] for _, attributes in page.tags if attributes.get("class") == "looks"]
    properties = dict(part.split(":", 1) for part in re.findall(r"--\w+:[^;]*(?:;base64[^;]*)*", looks))
    assert properties["--sizes"].rstrip(";") == "33.333% 100%,66.667% 100%"
    assert properties["--places"].rstrip(";") == "0.000% 0,100.000% 0"
    assert float(properties["--aspect"].rstrip(";")) == pytest.approx(60 / 40 + 120 / 40)
    assert [part.size for part in map(picture, re.findall(r"url\((data:[^)]*)\)", looks))] == [(60, 40), (120, 40)]
    for _, attributes in page.tags:
        if attributes.get("class") == "word":
            assert len(read_maps(attributes)) == 2


def test_a_page_without_explanations_holds_nothing_of_them():
    assert "<details" not in answer_html(answer("t", ["a"]))
    malformed = prediction("I cannot say", [], reason="no answer block")
    assert "<details" not in answer_html(replace(malformed, explanation=Explanation((), (), ())))


def test_what_a_model_says_is_text_and_nothing_comes_from_elsewhere():
    said = "A\"b' onfocus='x' <script>alert(1)</script> </p> url(http://x) & \n\r</style>."
    found = explained(answer(said, ['it\'s "quoted" & so']))
    page = answer_html(found)
    assert "\n" not in page
    assert "\r" not in page
    read = Read(page)
    assert not {tag for tag, _ in read.tags} & {"script", "link", "iframe", "object"}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    for _, attributes in read.tags:
        assert not re.findall(r"url\((?!data:image/(?:png|jpeg);base64,[\w+/=]*\))", attributes.get("style") or "")
        assert not re.match("(?!data:)", attributes.get("src") or "data:")
    assert "alert(1)" in "".join(read.texts)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on PATH")
def test_a_browser_shows_the_map_of_a_word_at_its_place(tmp_path):
    from playwright.sync_api import sync_playwright

    gallery = Gallery(tmp_path, "T", "s")
    gallery.add(explained(answer("Scene: cat sits here.", ["cat"])))
    page_file = gallery.finish([])
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_context(java_script_enabled=False, offline=True).new_page()
        page.goto(page_file.as_uri())

        def yellow():
            """How far red is above blue, over the photograph."""
            shot = page.locator(".looks > .screen").screenshot()
            pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
            return pixels[..., 0] - pixels[..., 2]

        page.locator("summary").click()
        assert np.abs(yellow()).max() < 10, "the photograph is grey"
        for number in (3, 4):  # "here", "cat"
            page.locator(".word").nth(number).hover()
            height, width = yellow().shape
            y, x = np.unravel_index(yellow().argmax(), (height, width))
            assert yellow().max() > 60
            assert (y * 4 // height, x * 6 // width) == (0, number)
        page.mouse.move(0, 0)
        assert np.abs(yellow()).max() < 10
        page.locator("summary").focus()
        for _ in range(5):
            page.keyboard.press("Tab")
        assert yellow().max() > 60, "the last word by the keyboard"
        browser.close()
