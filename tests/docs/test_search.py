"""What a reader asks of the pages is found: the question's words, typed into the search of the built site, in a browser."""

import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
import yaml

from tests.docs.pages import ROOT, in_checkout

mkdocs_config = pytest.importorskip("mkdocs.config", reason="the site is built by mkdocs")
sync_api = pytest.importorskip("playwright.sync_api", reason="the site is searched in a browser, by playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [in_checkout, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH")]

# What is typed -> the page that answers, which must be the first or the second that is found.
QUESTIONS = {
    "how do I resume": "resuming",
    "use W&B": "loggers",
    "weights and biases": "loggers",
    "wandb": "loggers",
    "train with my COCO json": "photographs",
    "evaluate another method": "evaluation",
    "what is IASM": "faq",
    "reproduce Table 1": "faq",
    "add a reward": "extending",
    "use two GPUs": "distributed",
    "run offline": "models",
    "use my own model": "models",
    "change the learning rate": "configs",
    "out of memory": "faq",
    "num_generations": "coming_from",
    "ckpt_path": "resuming",
    "docker": "docker",
    "license": "models",
}

FINISHED = "() => /document/.test(document.querySelector('.md-search-result__meta').textContent)"  # or how many


@contextmanager
def served(folder):
    """The address of a folder on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as they are built, but for what is made from the code: neither its interface nor the help of commands."""
    from mkdocs.commands.build import build

    folder = tmp_path_factory.mktemp("site")
    file = ROOT / "mkdocs.yml"
    search = [each for each in yaml.safe_load(file.read_text())["plugins"] if "search" in each]
    config = mkdocs_config.load_config(str(file), site_dir=str(folder), strict=False, hooks=[], plugins=search)
    build(config)
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def found(site):
    """Question -> the pages that its words find, the best first."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)

        def ask(words):
            page.goto(f"{site}/index.html?q={quote(words)}")
            page.wait_for_function(FINISHED)
            links = page.locator(".md-search-result__item > a").evaluate_all("all => all.map(each => each.pathname)")
            pages = [link.rpartition("/")[2].removesuffix(".html") for link in links]
            return list(dict.fromkeys(pages))  # a page has a link for each of its sections that is found

        yield {words: ask(words) for words in QUESTIONS}
        browser.close()


@pytest.mark.parametrize(("words", "page"), QUESTIONS.items(), ids=list(QUESTIONS))
def test_the_page_that_answers_is_among_the_first_two(found, words, page):
    assert page in found[words][:2], f"{words}: the search finds {found[words][:5]}"
