"""The page in a browser: upload, run, masks that light, two models, downloads, and what it refuses."""

import json
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the page needs the extra demo")
sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested in a browser, by playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("the page is tested in a browser, and there is no chromium on PATH", allow_module_level=True)

from lightning_sal.inference.predictor import Predictor  # noqa: E402
from lightning_sal.tiny.notice import EXAMPLES  # noqa: E402
from tests.demo.parts import Says, png  # noqa: E402
from tests.demo.serving import served  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::gradio")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SOD = sorted(map(str, (EXAMPLES / "sod").iterdir()))[:2]
SIS = sorted(map(str, (EXAMPLES / "sis").iterdir()))[:2]
NOTICE = "Wrong on photographs."
HOSTILE = "<img src=x onerror='window.ran=1'>${window.ran=2}{{7*7}}"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """The folder for uploads; nothing is told to anyone about the use of the page."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield folder


@pytest.fixture(scope="module")
def connections():
    """Where this process connects to."""
    found = []

    def note(event, arguments):
        if event == "socket.getaddrinfo":
            found.append(arguments[0])
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            found.append(arguments[1][0])

    sys.addaudithook(note)
    return found


@pytest.fixture(scope="module")
def tiny():
    return Predictor.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def says():
    return Says(f"<think>{HOSTILE}", f"<think>{HOSTILE}</think><answer><rg>left half</rg></answer>")


@pytest.fixture(scope="module")
def pages(uploads, connections, tiny, says):
    """Name -> address: one model, two side by side, and one that waits until it is told to go on."""
    early = Predictor(Predictor.load("tiny-early", device="cpu").policy, tiny.segmenter)
    with (
        served({"tiny": tiny}, NOTICE) as one,
        served({"tiny": tiny, "tiny-early": early}, NOTICE) as two,
        served({"<b>says</b>": says}) as slow,
    ):
        yield {"one": one, "two": two, "slow": slow}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, pages):
    """Name of a page -> the page in a new tab; no tab asks anything of any other host."""
    context, asked = browser.new_context(), []
    context.set_default_timeout(120_000)  # ms, of a machine that does other things too
    context.on("request", lambda request: asked.append(request.url))

    def open_tab(name):
        page = context.new_page()
        page.goto(pages[name])
        page.get_by_role("button", name="Show what stands out").wait_for()
        return page

    yield open_tab
    context.close()
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts == {"127.0.0.1"}


def upload(page, *files):
    page.locator("input[type=file]").first.set_input_files(list(files))


def run(page, answers):
    """Start, and wait for so many answers and the archive."""
    page.locator("#pictures img").first.wait_for()  # gradio loses what is started in the moment that a check ends
    page.get_by_role("button", name="Show what stands out").click()
    page.wait_for_function("n => document.querySelectorAll('#answers .answer').length == n", arg=answers)
    page.locator("button:not([disabled])", has_text="Download the masks").wait_for()


def download(page, tmp_path):
    with page.expect_download() as started:
        page.get_by_role("button", name="Download the masks").click()
    started.value.save_as(tmp_path / "masks.zip")
    with ZipFile(tmp_path / "masks.zip") as files:
        assert files.testzip() is None
        files.extractall(tmp_path / "masks")
    return tmp_path / "masks"


def predicted(predictor, files, task="sod"):
    return [predictor(file, task) for file in files]


def assert_masks(folder, predictions):
    """A folder of the archive holds the masks and words of predictions."""
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["response"] for line in lines] == [prediction.text for prediction in predictions]
    for line, prediction in zip(lines, predictions, strict=True):
        assert line["images"] == [Path(path).name for path in prediction.group.paths]
        for files, masks in zip(line["masks"], prediction.masks, strict=True):
            found = [np.asarray(Image.open(folder / file)) > 0 for file in files]
            assert torch.equal(torch.from_numpy(np.stack(found)), masks)
            assert any(mask.any() for mask in found)


def opacities(page):
    """Opacity of each mask of the first answer, once they change no more."""
    page.wait_for_function("document.getAnimations().every(animation => animation.playState == 'finished')")
    masks = page.locator(".answer").first.locator(".mask")
    return [float(mask.evaluate("mask => getComputedStyle(mask).opacity")) for mask in masks.all()]


def test_photographs_are_answered_and_an_expression_lights_its_mask(open_page, tiny, tmp_path):
    page = open_page("one")
    assert NOTICE in page.inner_text("#head")
    upload(page, *SIS)
    page.get_by_label("Salient instance segmentation").check()
    run(page, 2)
    expected = predicted(tiny, SIS, "sis")
    for card, prediction in zip(page.locator("#answers .card").all(), expected, strict=True):
        assert card.locator("h2").inner_text() == Path(prediction.group.paths[0]).name
        assert card.locator(".expressions .expression").all_inner_texts() == list(prediction.expressions)
    numbers = range(len(expected[0].expressions))
    assert len(numbers) > 1, "the first scene of SIS shows several instances"
    assert opacities(page) == [1 for _ in numbers]
    for number in numbers:
        page.locator(".answer").first.locator(".expressions .expression").nth(number).hover()
        found = opacities(page)
        assert found[number] == 1
        assert all(found[other] < 0.1 for other in numbers if other != number)
    page.locator("h1").hover()
    assert opacities(page) == [1 for _ in numbers]
    assert_masks(download(page, tmp_path), expected)


def test_pointing_at_a_word_shows_where_it_came_from(open_page, tiny):
    page = open_page("one")
    upload(page, SOD[0])
    page.get_by_label("Where each word came from").check()
    run(page, 1)
    prediction = tiny(SOD[0], "sod", explained=True)
    page.locator("#answers summary").click()
    words = page.locator("#answers .word")
    assert words.all_inner_texts() == [part.text for part in prediction.explanation.words]
    shown = "word => getComputedStyle(word, '::after').backgroundImage"
    assert words.nth(1).evaluate(shown) == "none"
    words.nth(1).hover()
    assert words.nth(1).evaluate(shown).startswith('url("data:image/png')
    assert words.nth(2).evaluate(shown) == "none"
    page.keyboard.press("Tab")
    words.nth(2).focus()
    assert words.nth(2).evaluate(shown).startswith('url("data:image/png')


def test_a_question_is_asked_of_a_task_that_has_one(open_page, says):
    page = open_page("slow")
    upload(page, SOD[0])
    page.locator("#pictures img").wait_for()
    field = page.get_by_label("Question", exact=True)
    assert not field.is_visible()
    page.get_by_label("Visual question answering").check()
    field.wait_for()
    page.get_by_role("button", name="Show what stands out").click()
    page.get_by_text("There is no question yet").wait_for()
    field.fill("What stands out?")
    run(page, 1)
    assert says.asked == ("What stands out?", False)
    page.get_by_label("Salient object detection", exact=True).check()
    field.wait_for(state="hidden")


def test_new_photographs_end_what_is_shown_and_what_is_being_written(open_page, says):
    """The answers of others go at once, and none comes later."""
    page = open_page("slow")
    upload(page, SOD[0])
    run(page, 1)
    upload(page, SOD[1])
    page.locator("#answers .answer").wait_for(state="detached")
    assert page.get_by_role("button", name="Download the masks").is_disabled()
    page.locator("#pictures img").nth(1).wait_for()
    says.go.clear()
    try:
        page.get_by_role("button", name="Show what stands out").click()
        page.locator("#current .so-far").wait_for()
        page.locator("#examples .strip").first.click()
        page.locator("#current .so-far").wait_for(state="detached")
    finally:
        says.go.set()
    page.locator("#pictures img").nth(1).wait_for(state="detached")
    run(page, 1)
    assert page.locator(".so-far").count() == 0


def test_a_model_that_fails_says_why_and_leaves_no_half_of_an_answer(open_page, says):
    page = open_page("slow")
    upload(page, SOD[0])
    page.locator("#pictures img").wait_for()
    says.fails = True
    try:
        page.get_by_role("button", name="Show what stands out").click()
        page.get_by_text("The model failed: out of <b>memory</b>").wait_for()
    finally:
        says.fails = False
    page.locator("#current .so-far").wait_for(state="detached")
    run(page, 1)


def test_a_group_has_the_width_of_the_page_and_a_phone_no_sideways_scrolling(open_page):
    page = open_page("one")
    page.locator("#examples .strip").last.click()
    page.locator("#pictures img").nth(1).wait_for()
    run(page, 1)
    for width, columns in ((1280, 3), (390, 2)):
        page.set_viewport_size({"width": width, "height": 844})
        tops = page.locator("#answers .image").evaluate_all("images => images.map(image => image.offsetTop)")
        assert len(set(tops[:columns])) == 1
        assert page.locator("#answers .card").bounding_box()["width"] > 0.8 * width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_two_models_answer_side_by_side(open_page, tiny, tmp_path):
    page = open_page("two")
    upload(page, *SOD)
    run(page, 4)
    cards = page.locator("#answers .card")
    heads = [f"{model} · {Path(path).name}" for path in SOD for model in ("tiny", "tiny-early")]
    assert cards.locator("h2").all_inner_texts() == heads
    boxes = [card.bounding_box() for card in cards.all()]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    assert boxes[2]["y"] > boxes[0]["y"]
    folder = download(page, tmp_path)
    assert sorted(part.name for part in folder.iterdir()) == ["1-tiny", "2-tiny-early"]
    assert_masks(folder / "1-tiny", predicted(tiny, SOD))
    assert len((folder / "2-tiny-early" / "predictions.jsonl").read_text().splitlines()) == 2


def test_an_example_sets_photographs_and_task(open_page, tiny, tmp_path):
    page = open_page("one")
    page.locator("#examples .strip").last.click()
    page.locator("#pictures img").nth(1).wait_for()
    assert page.get_by_label("Co-salient object detection").is_checked()
    run(page, 1)
    group = sorted(map(str, sorted((EXAMPLES / "cosod").iterdir())[-1].iterdir()))
    assert page.locator(".answer .photograph").count() == len(group)
    assert_masks(download(page, tmp_path), [tiny(group, "cosod")])


def test_whatever_cannot_be_used_is_told_and_the_next_photograph_works(open_page, tmp_path):
    page = open_page("one")
    bad = {
        "text.png": (b"hello", "text.png cannot be read: not an image"),
        "empty.png": (b"", "empty.png cannot be read: not an image"),
        "bomb.png": (png(60_000, 60_000), "bomb.png has more than the 2 million pixels"),
        "wide.png": (png(20_000, 101), "wide.png has more than the 2 million pixels"),
        "large.png": (bytes(2**20 + 1), 'exceed the maximum allowed size of 1.0 Mb: "large.png"'),
    }
    page.get_by_role("button", name="Show what stands out").click()
    page.get_by_text("There is no photograph yet").wait_for()
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        upload(page, tmp_path / name)
        page.get_by_text(message).wait_for()
    upload(page, SOD[0])
    page.locator("#pictures img").wait_for()
    page.get_by_label("Co-salient object detection").check()
    page.get_by_role("button", name="Show what stands out").click()
    page.get_by_text("add at least one more").wait_for()
    page.get_by_label("Salient object detection", exact=True).check()
    run(page, 1)


def test_what_the_server_is_sent_past_the_page_is_bounded_too(pages, uploads):
    """Whoever leaves out the page's own check of the size is stopped by the server, which keeps nothing of it."""
    import httpx

    with httpx.Client(base_url=pages["one"], trust_env=False) as client:
        client.get("/")
        answer = client.post("/gradio_api/upload", files={"files": ("large.png", bytes(2**20 + 1))})
        assert answer.status_code == 413
        assert client.get("/").status_code == 200
    assert not [file for file in uploads.rglob("*") if file.is_file() and file.stat().st_size > 2**20]


def test_runs_wait_their_turn_and_the_words_of_a_model_are_words(open_page, says):
    pages = [open_page("slow") for _ in range(3)]
    for page in pages:
        upload(page, SOD[0])
        page.locator("#pictures img").wait_for()
    told = (HOSTILE, "queue: 1/1", "This application is currently busy. Please try again.")
    says.go.clear()
    try:
        for page, message in zip(pages, told, strict=True):
            page.get_by_role("button", name="Show what stands out").click()
            page.get_by_text(message).wait_for()
    finally:
        says.go.set()
    for page in pages[:2]:
        page.locator("#answers .answer").wait_for()
        assert HOSTILE in page.inner_text("#answers .think")
        assert page.evaluate("window.ran") is None
        assert "<b>says</b>" in page.inner_text("#head")


def test_the_server_asks_nothing_of_any_other_host(pages, connections):
    """Of all that this process has connected to since the first page was built."""
    place = urlsplit(pages["one"])
    socket.create_connection((place.hostname, place.port)).close()
    assert "127.0.0.1" in connections
    assert set(connections) <= {"127.0.0.1", "localhost", "::1", "", None}
