"""The Hugging Face Hub on loopback, as far as making a repository and committing files goes."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SMALL = 1 << 20  # bytes of a file that is sent within the commit; larger ones go as LFS


class Hub(BaseHTTPRequestHandler):
    """Keeps `repositories`: name -> {"private", "files": path -> bytes}; knows the token "secret" alone."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state, path = self.server, self.path.partition("?")[0]
        if self.headers.get("Authorization") != "Bearer secret":
            return self.reply({"error": "who are you?"}, 401)
        if path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            there = name in state.repositories
            state.repositories.setdefault(
                name, {"private": asked.get("visibility") == "private" or bool(asked.get("private")), "files": {}}
            )
            return self.reply({"url": f"{state.url}/{name}", "name": name}, 409 if there else 200)
        if path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular" if f["size"] < SMALL else "lfs", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.reply({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{state.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            name = "/".join(path.split("/")[3:5])
            files = state.repositories[name]["files"]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    files[value["path"]] = state.objects[value["oid"]]
            return self.reply({"commitUrl": f"{state.url}/{name}/commit/1", "commitOid": "1", "success": True})
        return self.reply({"error": f"no {path}"}, 404)

    def do_PUT(self):
        self.server.objects[self.path.split("/")[-1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({})

    def do_GET(self):
        self.reply({"error": f"no {self.path}"}, 404)

    def reply(self, answer, code=200):
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A hub without repositories."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repositories, server.objects = {}, {}
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
