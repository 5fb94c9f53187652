"""The server of the explorer: on this machine alone, for whoever has the address.

Only 127.0.0.1 is bound. The address holds a random token, and the Host header must be this server's: a web page that
points its own name at 127.0.0.1 reaches nothing. What writes also needs the token in a header, which no form can send.
The standard library is enough: starlette and uvicorn would add seven packages and three times its import time.
"""

import base64
import hashlib
import io
import json
import re
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import jinja2
import polars as pl
from markupsafe import Markup

from clipmem.base.errors import ClipmemError, InputError, require, require_range, shorten
from clipmem.base.marks import Entry, append_marks, marks_file, read_marks
from clipmem.base.paths import checked_path
from clipmem.base.progress import Quiet, Reporter
from clipmem.report.explorer.columns import Columns
from clipmem.report.explorer.meaning import Meaning, Texts
from clipmem.report.explorer.neighbors import embedded
from clipmem.report.explorer.subject import Subject, Thumbnails
from clipmem.report.run import Document

SIZES = (96, 256, 1024)  # longest side of images, in pixels, never enlarged; exports have the second
PIECES = b"<!--pieces-->"  # where the data of a page in one file go
STATIC = {"app.js": "text/javascript; charset=utf-8", "app.css": "text/css; charset=utf-8"}
_JSON, _BYTES = "application/json", "application/octet-stream"
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:"
_LIVE = f"{_POLICY}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": _LIVE,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_MOST = 64 * 2**20  # bytes of a request
Content = tuple[bytes | Path, str, str]  # what is sent, its type, and the name of a download


def page(title: str, token: str = "", *, inline: bool = False) -> bytes:
    """Return index.html: live with a token, of an export without; `inline` with the app in it, and a mark for data."""
    text = (resources.files("clipmem.report.explorer") / "page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    policy, app = _POLICY.replace("'self'", "'self' file:"), dict[str, Markup]()
    for name, kind in (("app.js", "script"), ("app.css", "style")) if inline else ():
        code = static(name)
        app[kind] = Markup(code.decode())  # noqa: S704
        allowed = f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'"
        policy = policy.replace(f"{kind}-src 'self' file:", allowed)
    return template.render(title=title, token=token, policy=policy, app=app).encode()


def static(name: str) -> bytes:
    """Read a file of the app."""
    return (resources.files("clipmem.report.explorer") / "static" / name).read_bytes()


class RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, text: str = "") -> None:
        super().__init__(text or status.phrase)
        self.status = status


class Writing(Quiet):
    """Cleaned data that are being written in a thread of its own, and how far that is."""

    def __init__(self, write: Callable[[Reporter], Any]) -> None:
        self.status: dict[str, object] = {"running": True, "stage": "read", "share": None, "error": "", "written": None}
        self._done, self._total = 0, 0

        def work() -> None:
            try:
                self.status["written"] = write(self)
            except (ClipmemError, OSError) as error:
                self.status["error"] = str(error)
            except BaseException:
                self.status["error"] = "This is a bug in clipmem; the traceback is in its terminal."
                raise
            finally:
                self.status["running"] = False

        threading.Thread(target=work, daemon=True).start()

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:  # noqa: ARG002
        """Start a stage."""
        self._done, self._total = 0, total or 0
        self.status |= {"stage": stage, "share": None}

    def advance(self, amount: int, note: str = "") -> None:  # noqa: ARG002
        """Add finished units."""
        self._done += amount
        self.status["share"] = self._done / self._total if self._total else None


class Explorer:
    """What the server answers, for one subject.

    Args:
        subject: The pairs.
        review: Returns the uids of the `suspects` in order, the number `expected` wrong, and whether marks order them.
        write: Writes the cleaned data into a folder, and returns what was written; with `review`.
        texts: Loads the text tower of a side and a seed of the run (see `Meaning`).
    """

    def __init__(
        self,
        subject: Subject,
        review: Callable[[], Document] | None = None,
        write: Callable[..., Document] | None = None,
        texts: Callable[[str, int], Texts] | None = None,
    ) -> None:
        self.subject, self.columns = subject, Columns(subject)
        self._review, self._write, self._lock = review, write, threading.Lock()
        self._writing: Writing | None = None
        self.thumbnails, self.embedded = Thumbnails(subject), embedded(subject)
        self.meaning = Meaning(self.embedded, texts)
        self.marks_file, self.token = marks_file(subject.path), secrets.token_urlsafe(24)

    def get(self, path: str, query: Mapping[str, str]) -> Content:
        """Answer a path below the token."""
        if path == "":
            return page(self.columns.manifest["title"], self.token), "text/html; charset=utf-8", ""
        if path in STATIC:
            return static(path), STATIC[path], ""
        if path == "data/manifest.json":
            live = {"marks_file": str(self.marks_file), "writes": self._write is not None}
            return _json(self.columns.manifest | live)
        if path == "marks.json":
            return _json(self.marks())
        if path == "review.json" and self._review is not None:
            with self._lock:
                state = self._review()
            rows = [self.columns.row_of[uid] for uid in state["suspects"] if uid in self.columns.row_of]
            return _json({**state, "suspects": rows})
        if path == "write.json" and self._writing is not None:
            return _json(self._writing.status)
        if path == "meaning":
            return self.meaning.similarities(query.get("q", "")).astype("<f4").tobytes(), _BYTES, ""
        if match := re.fullmatch(r"data/columns/([^/]+?)(\.strings)?\.bin", path):
            kind = self.columns.by_name.get(match[1], {}).get("type")
            if kind is not None and (kind == "text" or not match[2]):
                return self.columns.folder / f"{match[1]}{match[2] or ''}.bin", _BYTES, ""
        if match := re.fullmatch(r"(thumbs|pairs|neighbors)/([0-9]{1,12})\.(?:webp|json)", path):
            require_range("row", int(match[2]), 0, len(self.columns) - 1)
            return self._of_row(match[1], int(match[2]), query)
        raise RefusedError(HTTPStatus.NOT_FOUND)

    def _of_row(self, part: str, row: int, query: Mapping[str, str]) -> Content:
        """Return the thumbnail of a row, its details (`pairs`), or its neighbors."""
        if part == "pairs":
            mark = read_marks(self.marks_file).get(self.columns.uids[row])
            return _json(self.columns.details(row) | {"mark": mark and mark.mark, "note": mark and mark.note})
        name, default = ("size", SIZES[0]) if part == "thumbs" else ("k", 20)
        text = query.get(name, str(default))
        require(re.fullmatch("[0-9]{1,6}", text), name, shorten(text), "a whole number")
        number = int(text)
        if part == "neighbors":
            require_range("k", number, 1, 200)
            near = self.embedded and self.embedded.nearest(row, query.get("space", ""), query.get("side", ""), number)
            return _json(near or [])
        require(number in SIZES, "size", f"{number}", "96, 256 or 1024")
        image = self.thumbnails.get(row, number)
        if image is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "no image")
        return image, "image/webp", ""

    def marks(self) -> dict[int, tuple[str, str | None]]:
        """Return mark and caption of the marked pairs by row."""
        records = {self.columns.row_of.get(uid): record for uid, record in read_marks(self.marks_file).items()}
        return {row: (record.mark, record.caption) for row, record in records.items() if row is not None}

    def post(self, path: str, body: Any) -> Content:
        """Mark pairs, write the cleaned data, or return some pairs as a Parquet file."""
        if path == "marks":
            read_marks(self.marks_file)  # refused before a line is added: the page sends again what is not answered
            entries, names = list[Entry](), ("mark", "note", "caption")
            for entry in body if isinstance(body, list) else [body]:
                named = isinstance(entry, dict) and all(isinstance(entry.get(x), str | None) for x in names)
                require(named, "mark", shorten(entry), "row, mark, note and caption")
                entries.append(Entry(self.columns.uids[self._row(entry.get("row"))], *map(entry.get, names)))
            append_marks(self.marks_file, entries)
            return _json(self.marks())
        if path == "write" and self._write is not None:
            kinds = {"path": str, "correct": bool, "reviewed": bool}
            named = isinstance(body, dict) and all(isinstance(body.get(name), kind) for name, kind in kinds.items())
            require(named and body["path"].strip(), "write", shorten(body), "path, correct and reviewed")
            out = checked_path(body["path"].strip(), "folder of the cleaned data")
            with self._lock:
                running = self._writing is not None and self._writing.status["running"]
                require(not running, "write", "data that are being written", "one folder at a time", "Wait for it.")
                how = {"correct": body["correct"], "reviewed": body["reviewed"]}
                self._writing = Writing(partial(self._write, out, **how))
            return _json(self._writing.status)
        if path != "export":
            raise RefusedError(HTTPStatus.NOT_FOUND)
        require(isinstance(body, dict) and isinstance(body.get("rows"), list), "export", shorten(body), "rows")
        rows, marks, stream = [self._row(row) for row in body["rows"]], read_marks(self.marks_file), io.BytesIO()
        # uid, mark, time, note, captions and scores
        scores = self.subject.scores[rows]
        records, names = [marks.get(uid) for uid in scores["uid"]], ("mark", "time", "note")
        columns = [pl.Series(name, [m and getattr(m, name) for m in records], dtype=pl.String) for name in names]
        captions = [] if self.subject.pairs is None else [self.subject.pairs["captions"][rows]]
        columns = [*columns, *captions, *scores.drop("uid").get_columns()]
        scores.select("uid").hstack(columns).write_parquet(stream)
        return stream.getvalue(), _BYTES, "pairs.parquet"

    def _row(self, row: Any) -> int:
        is_row = type(row) is int and 0 <= row < len(self.columns)
        require(is_row, "row", shorten(row), f"0 to {len(self.columns) - 1:,}")
        return row


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "clipmem", ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(lambda explorer, path, query: explorer.get(path, query))

    def do_POST(self) -> None:
        self._answer(self._post)

    def _post(self, explorer: Explorer, path: str, _: Mapping[str, str]) -> Content:
        self._check_token(explorer, self.headers.get("X-Clipmem-Token", ""))
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > _MOST:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "not JSON") from None
        return explorer.post(path, body)

    def _check_token(self, explorer: Explorer, token: str) -> None:
        same = secrets.compare_digest(token.encode(), explorer.token.encode())
        self._check(same, "Open the address that `clipmem view` printed.")

    def _check(self, allowed: bool, text: str) -> None:
        if not allowed:
            raise RefusedError(HTTPStatus.FORBIDDEN, text)

    def _answer(self, make: Callable[[Explorer, str, Mapping[str, str]], Content]) -> None:
        assert isinstance(self.server, Server)  # noqa: S101
        status, (target, _, query) = HTTPStatus.OK, self.path.partition("?")
        token, _, path = target.removeprefix("/").partition("/")
        try:
            self._check(self.headers.get("Host", "") in self.server.hosts, "This host name is not served.")
            self._check_token(self.server.explorer, token)
            content, kind, name = make(self.server.explorer, unquote(path), dict(parse_qsl(query)))
        except (RefusedError, ClipmemError, OSError) as error:
            default = HTTPStatus.BAD_REQUEST if isinstance(error, InputError) else HTTPStatus.INTERNAL_SERVER_ERROR
            status = error.status if isinstance(error, RefusedError) else default
            content, kind, name = _json({"error": str(error)})
            self.close_connection = True  # the body of a request may be unread
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        caching = "private, max-age=86400" if kind == "image/webp" else "no-store"
        headers = {"Content-Type": kind, "Content-Length": str(size), "Cache-Control": caching}
        download = {"Content-Disposition": f'attachment; filename="{name}"'} if name else {}
        try:
            self.send_response(status)
            for header in (_HEADERS | headers | download).items():
                self.send_header(*header)
            self.end_headers()
            if isinstance(content, bytes):
                self.wfile.write(content)
            else:
                with content.open("rb") as stream:
                    self.connection.sendfile(stream)
        except (ConnectionError, TimeoutError):  # a closed browser
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


class Server(ThreadingHTTPServer):
    """The server, bound to a port of 127.0.0.1; 0 = a free one.

    Raises:
        InputError: The port is in use, or not allowed.
    """

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        self.explorer, hint = explorer, "Choose another port, or omit --port for a free one."
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            got = error.strerror or str(error)
            raise InputError(f"--port {port}", got=got, expected="a free port", hint=hint) from error
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def address(self) -> str:
        """The address to open."""
        return f"http://127.0.0.1:{self.server_port}/{self.explorer.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print unexpected errors; a closed browser is none."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def encoded(value: object) -> bytes:
    """Return a value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _json(value: object) -> Content:
    return encoded(value), _JSON, ""
