"""A Hugging Face Hub on this machine's loopback address, with faults on request."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import constants

SHA = "0123456789abcdef0123456789abcdef01234567"
LFS = (".safetensors", ".parquet")


class Hub:
    """What the server holds: `files` of one repository, and `faults`, one per GET of a file.

    A fault is "cut" (half of the body, then the line drops), "short" (half of it, said to be all),
    "altered" (one byte flipped), "cut again" and so on (the same, every time); `status` is
    an HTTP status for every request, `page` the body of every answer.
    """

    def __init__(self, repo: str, kind: str, files: dict[str, bytes], revision: str = SHA):
        self.repo, self.kind, self.files, self.revision = repo, kind, files, revision
        self.faults: dict[str, str] = {}
        self.status: int | None = None
        self.page: bytes | None = None
        self.asked: list[str] = []  # paths of all requests
        self.got: list[str] = []  # files that were asked for

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes, bytes]:
        """Return status, headers, the body as it should be and the body as it goes out."""
        self.asked.append(path)
        if self.status:
            return self.status, {}, b"", b""
        if self.page:
            return 200, {}, self.page, self.page
        prefix = "" if self.kind == "model" else "datasets/"
        for revision in (self.revision, "main"):
            if path == f"/api/{self.kind}s/{self.repo}/revision/{revision}":
                siblings = [{"rfilename": name} for name in self.files]
                return self._json({"id": self.repo, "sha": self.revision, "siblings": siblings})
            if path == f"/api/{self.kind}s/{self.repo}/tree/{revision}":
                return self._json([self._entry(name) for name in self.files])
            start = f"/{prefix}{self.repo}/resolve/{revision}/"
            if path.startswith(start) and (name := path.removeprefix(start)) in self.files:
                return self._file(method, name)
        known = f"/{self.repo}/" in path
        code = "RevisionNotFound" if known else "RepoNotFound"
        return 404, {"X-Error-Code": code}, b"", b""

    def _json(self, value: object) -> tuple[int, dict[str, str], bytes, bytes]:
        body = json.dumps(value).encode()
        return 200, {"Content-Type": "application/json"}, body, body

    def _entry(self, name: str) -> dict:
        entry = {
            "type": "file",
            "path": name,
            "size": len(self.files[name]),
            "oid": self._oid(name),
        }
        if name.endswith(LFS):
            entry["oid"] = "f" * 40  # of the pointer file
            entry["lfs"] = {"oid": self._oid(name), "size": entry["size"], "pointerSize": 134}
        return entry

    def _oid(self, name: str) -> str:
        content = self.files[name]
        if name.endswith(LFS):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _file(self, method: str, name: str) -> tuple[int, dict[str, str], bytes, bytes]:
        headers = {"X-Repo-Commit": self.revision, "ETag": f'"{self._oid(name)}"'}
        whole = sent = self.files[name]
        if method == "GET":
            self.got.append(name)
            fault = self.faults.get(name, "")
            if not fault.endswith("again"):
                self.faults.pop(name, None)
            if fault.startswith("cut"):
                sent = whole[: len(whole) // 2]
            elif fault.startswith("short"):
                whole = sent = whole[: len(whole) // 2]
            elif fault.startswith("altered"):
                whole = sent = bytes([whole[0] ^ 1]) + whole[1:]
        return 200, headers, whole, sent


class Hubs:
    """Several repositories at one address."""

    def __init__(self, *hubs: Hub):
        self.hubs = hubs

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes, bytes]:
        """Return what the repository in the path answers, or the first if it is none of them."""
        named = [hub for hub in self.hubs if f"/{hub.repo}/" in path]
        return [*named, self.hubs[0]][0].answer(method, path)


@contextlib.contextmanager
def serve(hub: Hub | Hubs):
    """Yield the address under which a hub answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, whole, sent = hub.answer(self.command, self.path.split("?")[0])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(whole))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(sent)
            self.close_connection = True

        do_HEAD = do_GET  # noqa: N815  the standard library's name

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use(monkeypatch, address: str, cache: Path) -> None:
    """Do what HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_DISABLE_XET do before the first import."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between its retries
