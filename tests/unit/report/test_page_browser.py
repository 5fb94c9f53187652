"""The report of hostile captions in a real browser: nothing of them runs, and no request leaves.

Needs Chromium (`apt-get install chromium`); skipped where there is none.
"""

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from clipmem.report.page import write_report
from tests.unit.report.outline import outline
from tests.unit.report.run_folder import Built

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

BEACON = "http://beacon.example"
MARK = "document.documentElement.dataset.owned='{}'"
# each marks the page under its own name, or asks for a file of its own name
PAYLOADS = {
    "script": f"<script>{MARK}</script>",
    "closed": f"</bdi></p></figure></title></style></script><script>{MARK}</script>",
    "error": f'<img src=x onerror="{MARK}">',
    "svg": f"<svg onload={MARK}>",
    "details": f'<details open ontoggle="{MARK}">x</details>',
    "attribute": f'" onerror="{MARK}" onload="{MARK}" x="',
    "quote": f"' autofocus tabindex=1 onfocus={MARK} x='",
    "frame": f'<iframe srcdoc="<script>parent.{MARK}</script>"></iframe>',
    "entity": f"&lt;script&gt;{MARK}&lt;/script&gt;<!--<script>{MARK}</script>-->",
    "image": f"<img src={BEACON}/{{}}>",
    "style": f"<style>*{{{{background:url({BEACON}/{{}})}}}}</style>",
    "link": f'<link rel=stylesheet href="{BEACON}/{{}}">',
    "refresh": f'<meta http-equiv=refresh content="0;url={BEACON}/{{}}">',
    "dialog": "<script>alert(1);confirm(1);prompt(1)</script>",
    "bidi": "\u202e\u2066\u200fdlrow\u2069 \u2028\u2029",
    "terminal": "\x1b[31m\x1b]8;;http://beacon.example\x07link\x1b[2J\x00\x9b31m",
    "long": "<b>" + "long " * 2000,
    "template": "{{{{ 7 * 7 }}}}{% raw %}${7*7}",
}
CAPTIONS = [text.replace("{}", name).replace("{{", "{").replace("}}", "}") for name, text in PAYLOADS.items()]


@pytest.fixture
def asked() -> Generator[tuple[str, list[str]]]:
    """Serve as the proxy of a browser; give its address and the list of all that it is asked for."""
    lines: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines.append(self.requestline)
            self.send_error(404)

        do_CONNECT = do_POST = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", lines
        server.shutdown()
        thread.join()


def rendered(page: Path, proxy: str, profile: Path) -> str:
    """Open a page in a browser of its own, let two seconds pass for it, and return its document as text."""
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
        *(f"--user-data-dir={profile}", f"--proxy-server={proxy}", "--virtual-time-budget=2000", "--dump-dom"),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout


def owned(document: str) -> list[str]:
    return re.findall(r"<html[^>]* data-owned=\"(\w+)\"", document)


def test_hostile_captions_do_nothing(build: Callable[..., Built], asked: tuple[str, list[str]], tmp_path: Path) -> None:
    proxy, lines = asked
    built = build(seeds=(0, 1), captions=[[CAPTIONS[k % len(CAPTIONS)]] * 4 for k in range(124)])
    page = write_report(built.folder, built.images)
    text = page.read_text(encoding="utf-8")
    document = rendered(page, proxy, tmp_path / "profile")
    # what was opened is the page with these captions, whole
    assert "autofocus tabindex=1" in document
    assert document.count("<figure") == text.count("<figure") > 0
    assert owned(document) == []
    assert [line for line in lines if "beacon" in line] == []
    assert document.count("<script") == text.count("<script")
    (tmp_path / "document.html").write_text(document, encoding="utf-8")
    for tag, attributes in outline(tmp_path / "document.html").tags:
        assert tag not in {"iframe", "object", "embed", "base", "link"}
        assert not [name for name in attributes if name.startswith("on") or name in {"srcdoc", "autofocus"}]
        assert (attributes.get("src") or "data:").startswith("data:")
    assert not set("\u202e\u2066\u200f\x1b\x9b") & set(document)
    assert "{{ 7 * 7 }}{% raw %}${7*7}" in document


@pytest.mark.parametrize("name", ["script", "error", "image"])
def test_the_same_captions_unescaped_would_act(asked: tuple[str, list[str]], tmp_path: Path, name: str) -> None:
    proxy, lines = asked
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><title>x</title><p>{CAPTIONS[list(PAYLOADS).index(name)]}", encoding="utf-8")
    document = rendered(page, proxy, tmp_path / "profile")
    assert owned(document) == [name] or any(f"beacon.example/{name}" in line for line in lines)
