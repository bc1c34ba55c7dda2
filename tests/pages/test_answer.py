"""Answers as HTML: what is said is escaped, what is found is drawn, and a browser lights masks without a script."""

import base64
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer import answer_html
from lightning_sal.pages.gallery import Gallery
from lightning_sal.pages.outlines import colour
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import TASKS, Expressions


def prediction(text, expressions, task="sis", size=(40, 60), images=1, reason=None):
    """Mask i is column i of each image, for each expression."""
    masks = torch.zeros(len(expressions), *size, dtype=torch.bool)
    for i in range(len(expressions)):
        masks[i, :, 10 * i : 10 * i + 5] = True
    pictures = tuple(torch.full((*size, 3), 120, dtype=torch.uint8) for _ in range(images))
    group = ImageGroup("photos/a.jpg", task, pictures, paths=("photos/a.jpg",) * images)
    read = Expressions(tuple(expressions), reasoning=TASKS[task].parse(text).reasoning, reason=reason)
    return Prediction(group, text, read, (masks,) * images, 0.875, (masks,) * images)


def answer(think, expressions, task="sis", **options):
    return prediction(TASKS[task].response(think, expressions), expressions, task, **options)


class Read(HTMLParser):
    """Tags with their attributes, text by the innermost class, and what is not closed."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_expressions_have_the_colours_of_their_masks():
    page = Read(answer_html(answer("Scene: red cat, and dog.", ["red cat", "dog"]), longest_side=60))
    assert page.open == []
    spans = [attrs for tag, attrs in page.tags if attrs.get("class") == "expression"]
    assert [span["data-mask"] for span in spans] == ["0", "1", "0", "1"]  # in the answer, then in the reasoning
    for span in spans:
        assert span["style"] == "--colour: rgb({} {} {})".format(*colour(int(span["data-mask"])))
        assert span["tabindex"] == "0"
    assert "".join(page.texts).startswith("red catdogScenered cat, and dog.")
    for i in range(2):
        inside = np.zeros((40, 60), bool)
        inside[:, 10 * i : 10 * i + 5] = True
        lines, shade = (
            np.array(picture(attrs["src"]).convert("RGBA"))
            for kind in ("mask", "shade")
            for _, attrs in page.tags
            if (attrs.get("class"), attrs.get("data-mask")) == (kind, str(i))
        )
        assert lines.shape == shade.shape == (40, 60, 4)
        assert not lines[inside][:, 3].any()  # the object is seen as it is
        assert not shade[inside][:, 3].any()
        assert (shade[~inside] == (0, 0, 0, 128)).all()
        assert tuple(lines[20, 10 * i + 6 + 0]) == (*colour(i), 255)


def test_an_expression_without_a_mask_says_so():
    found = answer("Scene: red cat, and dog.", ["red cat", "dog"])
    nothing = replace(found, prompt_masks=(found.masks[0] & torch.tensor([True, False])[:, None, None],))
    page = Read(answer_html(nothing))
    assert "dog no mask found" in "".join(page.texts)
    assert [attrs["data-mask"] for tag, attrs in page.tags if attrs.get("class") == "expression"] == ["0", "0"]
    assert [attrs["data-mask"] for _, attrs in page.tags if attrs.get("class") == "mask"] == ["0"]


def test_an_image_of_a_group_without_a_mask_says_so():
    found = answer("t", ["cat"], task="sis", images=3)
    without = replace(found, prompt_masks=(found.masks[0], found.masks[1] & False, found.masks[2]))
    assert "".join(Read(answer_html(without)).texts).count("no mask found") == 1


def test_what_is_not_found_says_how_sure_the_segmenter_was_of_it():
    """Of an expression the highest presence score of the images, of an image that of what it lacks; where there are some."""
    found = answer("t", ["cat"], task="sis", images=3)
    scores = tuple(torch.tensor([score]) for score in (0.9, 0.25, 0.125))
    nothing = replace(found, prompt_masks=tuple(masks & False for masks in found.masks), presence=scores)
    assert "cat no mask found (presence 0.90)" in "".join(Read(answer_html(nothing)).texts)
    partly = replace(nothing, prompt_masks=(found.masks[0], found.masks[1] & False, found.masks[2]))
    text = "".join(Read(answer_html(partly)).texts)
    assert text.count("no mask found") == 1
    assert "no mask found (presence 0.25)" in text
    unknown = replace(nothing, presence=(torch.tensor([float("nan")]),) * 3)
    assert "presence" not in "".join(Read(answer_html(unknown)).texts)


def test_where_only_the_union_was_kept_all_expressions_light_it():
    kept = answer("Scene: red cat, and dog.", ["red cat", "dog"], task="sod")
    union = replace(kept, masks=(kept.masks[0].any(0, keepdim=True),), prompt_masks=None)
    page = Read(answer_html(union))
    assert {attrs["data-mask"] for _, attrs in page.tags if "data-mask" in attrs} == {"0"}


def test_what_a_model_or_a_file_name_says_is_text():
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\" ' & \n\r</style>"
    bad = prediction(hostile, ["a"], reason=f"because {hostile}")
    bad.group.key = bad.group.paths[0] + hostile
    for page in (answer_html(bad), answer_html(answer("Scene: </p><b onclick='x'>, \n & \r", ['it\'s "quoted" & so']))):
        read = Read(page)
        assert "\n" not in page
        assert "\r" not in page
        assert {tag for tag, _ in read.tags} <= {
            "article",
            "style",
            "div",
            "figure",
            "img",
            "p",
            "span",
            "pre",
            "b",
            "i",
        }
        assert not [name for _, attrs in read.tags for name in attrs if name.startswith("on")]
        assert not re.findall(r'(?:src|href)="(?!data:)', page)
        assert "url(" not in page
        assert "@import" not in page
    read = Read(answer_html(bad))
    assert hostile.replace("\r", "\n") in "".join(read.texts).replace("\r", "\n")


def test_large_images_are_scaled_down_and_masks_to_the_size_of_the_page():
    page = Read(answer_html(answer("t", ["a"], size=(300, 1200)), longest_side=400))
    photograph, layer, _ = [picture(attrs["src"]) for tag, attrs in page.tags if tag == "img"]
    assert photograph.size == layer.size == (400, 100)
    page = Read(answer_html(answer("t", ["a"]), longest_side=400))
    photograph, layer, _ = [picture(attrs["src"]) for tag, attrs in page.tags if tag == "img"]
    assert (photograph.size, layer.size) == ((60, 40), (400, 267))


def test_an_answer_without_expressions_or_reasoning():
    nothing = Read(answer_html(prediction("I cannot say", [], reason="no answer block")))
    assert "Malformed: no answer block" in "".join(nothing.texts)
    assert "I cannot say" in "".join(nothing.texts)
    assert not [attrs for _, attrs in nothing.tags if attrs.get("class") == "mask"]


def test_the_gallery_grows_by_lines_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_sal.pages.gallery.A_PAGE", 2)
    gallery = Gallery(tmp_path, "T", "s")
    for name in "abcde":
        gallery.add(answer(f"About: {name}", [f"thing-{name}"]))
    gallery.finish(["x.png: <not> an image"])
    names = ["index.html", "index-2.html", "index-3.html"]

    def shown():
        return [re.findall(r"thing-\w", "".join(Read((tmp_path / name).read_text()).texts)) for name in names]

    assert shown() == [["thing-a", "thing-b"], ["thing-c", "thing-d"], ["thing-e"]]
    assert 'href="index-2.html"' in (tmp_path / "index.html").read_text()
    assert "x.png: &lt;not&gt; an image" in (tmp_path / "index-3.html").read_text()
    before = [(tmp_path / name).read_bytes() for name in names[:2]]
    with (tmp_path / "index-3.html").open("a") as file:
        file.write("<div class=")
    gallery = Gallery(tmp_path, "T", "s", 3)  # the fourth and the fifth answer were not listed before the kill
    for name in "DE":
        gallery.add(answer(f"About: {name}", [f"thing-{name}"]))
    gallery.finish([])
    assert shown() == [["thing-a", "thing-b"], ["thing-c", "thing-D"], ["thing-E"]]
    assert (tmp_path / "index.html").read_bytes() == before[0]
    assert "not</html" not in (tmp_path / "index-3.html").read_text()
    with pytest.raises(ValueError, match=r"index-3\.html: answers are missing"):
        Gallery(tmp_path, "T", "s", 6)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on PATH")
def test_a_browser_lights_the_mask_of_an_expression(tmp_path):
    from playwright.sync_api import sync_playwright

    gallery = Gallery(tmp_path, "T", "s")
    gallery.add(answer("Scene: cat and dog.", ["cat", "dog"]))
    gallery.add(answer("Scene: cow.", ["cow"]))
    page_file = gallery.finish([])
    opacity = "masks => masks.map(mask => Number(getComputedStyle(mask).opacity))"
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_context(java_script_enabled=True, offline=True).new_page()
        page.goto(page_file.as_uri())
        page.add_style_tag(content="* { transition: none !important }")
        masks = page.locator(".mask")
        assert masks.evaluate_all(opacity) == [1, 1, 1]
        shades = page.locator(".shade")
        assert shades.evaluate_all(opacity) == [
            1,
            0,
            0,
            1,
        ]  # outside both masks, outside each; outside the one of the other
        page.locator(".think .expression", has_text="dog").hover()
        dimmed, lit, other = masks.evaluate_all(opacity)
        assert (lit, other) == (1, 1)
        assert dimmed < 0.2
        assert shades.evaluate_all(opacity) == [0, 0, 1, 1]
        page.mouse.move(0, 0)
        page.keyboard.press("Tab")
        lit, dimmed, other = masks.evaluate_all(opacity)
        assert (lit, other) == (1, 1)
        assert dimmed < 0.2
        browser.close()
