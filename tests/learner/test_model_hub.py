"""Fetching from the Hugging Face Hub, with its real client; the Hub itself is a stand-in."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from agent.errors import ModelFetchError, ModelNotFoundError
from agent.models.loading import load
from agent.models.tiny import build_tiny

COMMIT = "c0ffee" + "0" * 34


class FakeHub(ThreadingHTTPServer):
    """Serves the files of a folder as the repository owner/name, at one commit."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fault = ""
        self.requests = 0


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests += 1
        path = self.path.partition("?")[0]
        files = {file.name: file.read_bytes() for file in self.server.folder.iterdir()}
        name = path.rpartition("/")[2]
        if self.server.fault == "broken":
            self.answer(500)
        elif "owner/name" not in path:
            self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/") and "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": sha1(body)}
                for name, body in files.items()
            ]
            self.answer(200, json.dumps(tree).encode())
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in files]
            self.answer(
                200, json.dumps({"id": "o/n", "sha": COMMIT, "siblings": siblings}).encode()
            )
        elif self.server.fault == "gated":
            self.answer(403, headers={"X-Error-Code": "GatedRepo"})
        else:
            about = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha1(files[name])}"'}
            self.answer(200, files[name], about)

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the tests' output clean."""


def sha1(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    folder = tmp_path / "repository"
    model, tokenizer = build_tiny()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    server = FakeHub(folder)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_is_fetched_once_and_then_needs_no_network(hub: FakeHub):
    reported: list[tuple[str, float, float | None]] = []
    loaded = load("owner/name", device="cpu", progress=lambda *step: reported.append(step))
    assert (loaded.name, loaded.revision) == ("owner/name", COMMIT)
    size = sum(file.stat().st_size for file in hub.folder.iterdir())
    assert ("download", size, size) in reported
    before = hub.requests
    assert load("owner/name", device="cpu").revision == COMMIT
    assert hub.requests == before


def test_a_name_that_the_hub_does_not_know(hub: FakeHub):
    with pytest.raises(ModelNotFoundError, match="The Hub has no model owner/other"):
        load("owner/other", device="cpu")


def test_a_gated_model_tells_about_its_terms(hub: FakeHub):
    hub.fault = "gated"
    with pytest.raises(ModelFetchError, match="accept its terms"):
        load("owner/name", device="cpu")


def test_out_of_reach_names_the_models_that_need_no_hub(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    unreachable = "cannot be reached.*--model smollm2-135m.*--model tiny"
    hub.fault = "broken"
    with pytest.raises(ModelNotFoundError, match=unreachable):
        load("owner/name", device="cpu")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ModelNotFoundError, match=unreachable):
        load("pythia-70m", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match=unreachable):
        load("pythia-70m", device="cpu")
