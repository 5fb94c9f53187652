"""Fetching from the hub: only when asked for, safetensors first, once; from a server of our own on this machine."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clipmem.models import openclip

COMMIT = "b" * 40
PROGRAM = """
import os, sys
from clipmem.base.errors import ClipmemError
from clipmem.models import given
for line in sys.stdin:
    name, os.environ["CLIPMEM_DOWNLOAD"] = line.split()
    try:
        model = given.load(given.find(name))
        print("loaded", model.image_size, flush=True)
    except ClipmemError as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture
def hub():
    """Serve files as the hub does, and note what was asked for."""
    files: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, *, body):
            repository, _, name = self.path.lstrip("/").partition("/resolve/main/")
            asked.append(f"{self.command} {name}")
            data = files.get(f"{repository}/{name}")
            known = any(file.startswith(f"{repository}/") for file in files)
            self.send_response(200 if data is not None else 404 if known else 401)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("Content-Length", "0")
            else:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body and data is not None:
                self.wfile.write(data)

        def do_GET(self):
            self.answer(body=True)

        def do_HEAD(self):
            self.answer(body=False)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", files, asked
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_files_are_fetched_once_and_only_when_asked_for(hub, tmp_path):
    endpoint, files, asked = hub
    for file in openclip.create("clipmem-micro", seed=0).save(tmp_path / "model"):
        files[f"some/clip/{file.name}"] = file.read_bytes()

    @contextlib.contextmanager
    def process(**environment):
        """Start a process that loads models; what it gives is called with a name, and returns what was said."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "CLIPMEM_"))}
        settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), **environment}
        command = [sys.executable, "-c", PROGRAM]
        with subprocess.Popen(
            command, env=clean | settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as started:

            def run(name, *, download=False):
                print(name, int(download), file=started.stdin, flush=True)
                return started.stdout.readline().strip()

            yield run

    with process() as run:
        assert run("hf-hub:some/clip").startswith(
            "InputError model 'hf-hub:some/clip': got no open_clip_config.json of the hub repository some/clip in "
        )
        assert asked == []
        assert run("hf-hub:some/clip", download=True) == "loaded 32"
        # requests without a name ask the hub about the repository
        assert {name for name in asked if name.startswith("GET ") and name != "GET "} == {
            "GET open_clip_config.json",
            "GET open_clip_model.safetensors",
        }
        assert run("hf-hub:no/such", download=True) == (
            "InputError model 'hf-hub:no/such': got no hub repository no/such, or a private one, expected an "
            "accessible repository. Check the name; for a private one, run: hf auth login."
        )
        files["bare/clip/open_clip_config.json"] = json.dumps({}).encode()
        missing = run("hf-hub:bare/clip", download=True)
        assert "got no open_clip_model.safetensors or open_clip_pytorch_model.bin of the hub repository bare" in missing
    asked.clear()
    with process() as run:
        assert run("hf-hub:some/clip", download=True) == run("hf-hub:some/clip") == "loaded 32"
        assert asked == []
    with process(HF_HUB_OFFLINE="1") as run:
        offline = run("hf-hub:other/clip", download=True)
        assert offline.startswith("RunError could not download open_clip_config.json of other/clip: ")
