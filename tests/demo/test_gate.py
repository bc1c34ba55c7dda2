"""What a visitor of the demo page can ask of its API: nothing of the server's disk, of others, or of other hosts."""

import io
import json
import os
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs the extra demo")

from lightning_sal.demo.gate import LONGEST
from lightning_sal.demo.page import EXAMPLES
from tests.demo.parts import Says
from tests.demo.serving import served

pytestmark = pytest.mark.filterwarnings("ignore:::gradio")
API = "/gradio_api"


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(file, "PNG")
    return file.getvalue()


class Visitor:
    """Someone who has opened the page, and then asks its API by hand."""

    def __init__(self, url):
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self.client.get("/")
        functions = self.client.get("/config").json()["dependencies"]
        self.functions = {function["api_name"]: function["id"] for function in functions}

    def upload(self, name, content):
        (path,) = self.client.post(f"{API}/upload", files={"files": (name, content)}).json()
        return path

    def join(self, function, data, **headers):
        """The answer to a question that is put into the queue, and the session that it is put into."""
        session = secrets.token_hex(5)
        question = {"fn_index": self.functions[function], "data": data, "session_hash": session}
        return self.client.post(f"{API}/queue/join", json=question, headers=headers), session

    def ask(self, function, data):
        """What the page shows in the end."""
        answer, session = self.join(function, data)
        assert answer.status_code == 200, answer.text
        with self.client.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:") or "{}")
                if message.get("msg") == "process_completed":
                    return message["success"], message["output"]
        raise AssertionError("the stream ended before the answer")

    def file(self, path):
        return self.client.get(f"{API}/file={path}")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield folder


@pytest.fixture(scope="module")
def url(uploads):
    model = Says("<think>a", "<think>a</think><answer><rg>left half</rg></answer>")
    with served({"says": model}, allowed=["demo.example"]) as place:
        yield place


@pytest.fixture
def visitor(url):
    visitor = Visitor(url)
    yield visitor
    visitor.client.close()


@pytest.fixture
def other(url):
    visitor = Visitor(url)
    yield visitor
    visitor.client.close()


def of(path, **more):
    """A file as the page's library tells it."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def stored(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.stat().st_size}


@contextmanager
def web_server():
    """An address that has a photograph, and who asked for it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture("red"))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.png", asked
        server.shutdown()


def test_a_visitor_has_what_he_uploads_and_what_is_made_of_it_alone(visitor, other):
    path = visitor.upload("mine.png", picture("blue"))
    done, output = visitor.ask("check", [[of(path)]])
    assert done
    assert "mine.png" in output["data"][1]
    done, output = visitor.ask("run", [[of(path)], "sod", "", False])
    assert done
    archive = output["data"][2]["value"]["path"]
    assert visitor.file(path).content == picture("blue")
    with ZipFile(io.BytesIO(visitor.file(archive).content)) as files:
        assert "predictions.jsonl" in files.namelist()
    for theirs in (path, archive):
        assert other.file(theirs).status_code == 403
        for function, more in (("check", []), ("run", ["sod", "", False])):
            assert other.join(function, [[of(theirs)], *more])[0].status_code == 403


def test_a_photograph_that_two_visitors_upload_is_either_ones(visitor, other):
    paths = [each.upload("same.png", picture("pink")) for each in (visitor, other)]
    for each, path in zip((visitor, other), paths, strict=True):
        assert each.file(path).content == picture("pink")


def test_names_that_make_a_long_answer_are_the_visitors_too(visitor):
    """The library packs longer answers where the browser takes that, as to an upload of a dozen files."""
    files = [("files", (f"{'name' * 10}-{number}.png", picture("blue"))) for number in range(12)]
    paths = visitor.client.post(f"{API}/upload", files=files, headers={"Accept-Encoding": "br, gzip"}).json()
    assert [visitor.file(path).status_code for path in paths] == [200] * 12


def test_examples_are_everyones(visitor):
    (answer,) = visitor.client.post(
        f"{API}/run/predict", json={"fn_index": visitor.functions["lambda"], "data": [0], "session_hash": "a"}
    ).json()["data"][:1]
    (path,) = [file["path"] for file in answer]
    assert Path(path).is_relative_to(EXAMPLES)
    assert visitor.file(path).content == Path(path).read_bytes()
    assert visitor.ask("run", [[of(path)], "sod", "", False])[0]


KINDS = ["image", "image without a suffix", "link", "way up", "file address", "text", "pipe", "folder", "endless"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_else_on_the_disk_is_read(kind, visitor, uploads, tmp_path):
    mine = visitor.upload("mine.png", picture("blue"))
    secret = tmp_path / "secret.png"
    for name in ("secret.png", "secret"):
        (tmp_path / name).write_bytes(picture("red"))
    (tmp_path / "link.png").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe.png")
    path = {
        "image": str(secret),
        "image without a suffix": str(tmp_path / "secret"),
        "link": str(tmp_path / "link.png"),
        "way up": str(Path(mine).parent) + "/../" * 20 + str(secret).lstrip("/"),
        "file address": f"file://{secret}",
        "text": "/etc/passwd",
        "pipe": str(tmp_path / "pipe.png"),
        "folder": str(uploads),
        "endless": "/dev/zero",
    }[kind]
    before = stored(uploads)
    questions = {
        "plain": [of(path)],
        "beside one's own": [of(mine), of(path)],
        "without its mark": [{"path": path}],
        "in a state of the component": {"value": [of(path)]},
        "in what is the visitor's": [of(mine, more=of(path))],
    }
    for photographs in questions.values():
        for function, more in (("check", []), ("run", ["sod", "", False])):
            answer, _ = visitor.join(function, [photographs, *more])
            assert answer.status_code == 403
            assert answer.json() == {
                "detail": "this visitor has no such file: upload it, for a second time where that was long ago"
            }
    question = {"fn_index": visitor.functions["check"], "data": [[of(path)]], "session_hash": "a"}
    assert visitor.client.post(f"{API}/run/predict", json=question).status_code == 403
    assert visitor.file(path).status_code in (403, 404)
    assert stored(uploads) == before  # nor is it copied


def test_no_address_is_fetched(visitor):
    mine = visitor.upload("mine.png", picture("blue"))
    with web_server() as (address, asked):
        for path in (address, address.replace("http:", "HTTP:")):
            assert visitor.join("check", [[of(path)]])[0].status_code == 403
            assert visitor.file(path).status_code == 403
        assert visitor.client.get(f"{API}/proxy={address}").status_code == 404
        done, output = visitor.ask("check", [[of(mine, url=address)]])
        assert done
        assert "mine.png" in output["data"][1]
        assert httpx.get(address, trust_env=False).content == picture("red")
    assert asked == ["/a.png"]


def test_a_question_is_read_but_once(visitor, tmp_path):
    """Of a key that is there twice the library sees the one that was checked."""
    mine = visitor.upload("mine.png", picture("blue"))
    (tmp_path / "secret.png").write_bytes(picture("red"))
    file = '{"path": "%s", "path": "%s", "meta": {"_type": "gradio.FileData"}}'
    question = '{"fn_index": %d, "session_hash": "twice", "data": [[' + file + "]]}"
    for paths, status in (((tmp_path / "secret.png", mine), 200), ((mine, tmp_path / "secret.png"), 403)):
        body = question % (visitor.functions["check"], *paths)
        headers = {"Content-Type": "application/json"}
        answer = visitor.client.post(f"{API}/run/predict", content=body, headers=headers)
        assert answer.status_code == status
        assert "secret" not in answer.text


def test_a_question_is_bounded(visitor):
    def ask(content):
        headers = {"Content-Type": "application/json"}
        return visitor.client.post(f"{API}/queue/join", content=content, headers=headers).status_code

    assert ask(b" " * (LONGEST + 1)) == 413
    assert ask(b"no JSON") == ask(b"[" * 500_000) == ask(b"\xff") == 400


@pytest.mark.parametrize(
    "path",
    [
        "/openapi.json", "/docs", "/redoc", "/monitoring", "/login", "/manifest.json", "/nothing", "//etc/passwd",
        *(API + route for route in (
            "/openapi.json", "/info", "/runs", "/deep_link", "/dev/reload", "/token", "/vibe-code", "/queue/status",
            "/custom_component/a/client/b/c", "/stream/a/b/1/playlist.m3u8", "/call/check/1", "/heartbeat/a", "/mcp",
        )),
    ],
)  # fmt: skip
def test_what_the_page_does_not_ask_is_not_there(path, visitor):
    assert visitor.client.get(path).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/api/predict", "/call/check", "/call/v2/check", "/run/check", "/component_server", "/process_recording",
     "/vibe-edit", "/stream/1", "/queue/data"],
)  # fmt: skip
def test_what_the_page_does_not_post_is_not_there(path, visitor):
    assert visitor.client.post(API + path, json={"data": []}).status_code == 404
    assert visitor.client.put(API + path, json={"data": []}).status_code == 405


def test_a_page_that_lost_the_server_finds_it_again(visitor):
    """The library asks for this until it is answered, under a message that stays."""
    assert visitor.client.get(f"{API}/app_id").json().keys() == {"app_id"}


def test_who_has_not_opened_the_page_is_no_visitor(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        answer = client.post(f"{API}/upload", files={"files": ("a.png", picture("red"))})
        assert answer.status_code == 403
        assert "open the page first" in answer.text
        cookie = client.get("/").headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "set-cookie" not in client.get("/").headers
        assert client.post(f"{API}/upload", files={"files": ("a.png", picture("red"))}).status_code == 200


HOST = "127.0.0.1:7860"


@pytest.mark.parametrize(
    ("host", "origin", "answered"),
    [
        (HOST, None, True),
        (HOST, f"http://{HOST}", True),
        ("localhost:7860", "http://localhost:7860", True),
        ("[::1]:7860", "http://[::1]:7860", True),
        ("192.168.1.7:7860", "http://192.168.1.7:7860", True),
        ("demo.example", "https://demo.example", True),
        (HOST, "https://demo.example", True),  # a proxy that asks in its own name
        (HOST, "http://evil.example", False),
        (HOST, "http://127.0.0.1:3000", False),
        (HOST, "http://localhost:7860", False),
        (HOST, "https://demo.example.evil.example", False),
        (HOST, "null", False),
        ("evil.example:7860", None, False),  # its name was made to lead here
        ("evil.example:7860", "http://evil.example:7860", False),
        ("127.0.0.1.evil.example", None, False),
        ("[", None, False),
        ("", None, False),
    ],
)
def test_pages_of_other_origins_are_refused(host, origin, answered, visitor):
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    mine = visitor.upload("mine.png", picture("blue"))
    statuses = {
        visitor.client.get("/", headers=headers).status_code,
        visitor.client.get(f"{API}/file={mine}", headers=headers).status_code,
        visitor.client.post(f"{API}/upload", files={"files": ("a.png", b"a")}, headers=headers).status_code,
        visitor.join("check", [[]], **headers)[0].status_code,
    }
    assert statuses == {200 if answered else 403}
