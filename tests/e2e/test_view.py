"""The explorer over HTTP and exported: who is answered, what hostile pairs do, and that marks survive a kill."""

import base64
import http.client
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipmem.base.marks import read_marks
from clipmem.report.explorer.server import Explorer, Server
from clipmem.report.explorer.subject import open_subject
from tests.e2e.running import clip
from tests.tiny import write_parquet

HOSTILE = [
    "<script>parent.x=1</script>",
    "</script><img src=x onerror=alert(1)>",
    "\u202etxt.exe\u2066",
    "\x1b[31mred\x1b[0m\0null\x1f",
    '=HYPERLINK("http://beacon")',
    "long " * 5_000,
]


def serve(path, **options):
    server = Server(Explorer(open_subject(path, **options)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(route, *, method="GET", body=None, headers=None, token=None, raw=False):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        target = route if raw else f"/{server.explorer.token if token is None else token}/{route}"
        own = {"X-Clipmem-Token": server.explorer.token} | (headers or {})
        connection.putrequest(method, target, skip_host="Host" in own)
        data = None if body is None else json.dumps(body).encode()
        for name, value in own.items():
            connection.putheader(name, value)
        if data is not None:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kind = answer.headers.get("Content-Type")
        parsed = json.loads(content) if kind == "application/json" else content
        return SimpleNamespace(status=answer.status, headers=answer.headers, content=parsed)

    return server, ask


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    return shutil.copytree(finished.path, tmp_path_factory.mktemp("view") / "study")


@pytest.fixture(scope="module")
def live(run):
    server, ask = serve(run)
    yield ask
    server.shutdown()
    server.server_close()


@pytest.fixture
def hostile(tmp_path):
    data = write_parquet(tmp_path / "data.parquet", len(HOSTILE), captions=[[text] for text in HOSTILE])
    from clipmem.base.sections import DataSection
    from clipmem.data.sources import open_source

    pairs = open_source(DataSection.model_validate({"path": str(data)})).pairs()
    path = tmp_path / "scores.parquet"
    pairs.select("uid", clipmem=pl.int_range(pl.len()).cast(pl.Float64)).write_parquet(path)
    return path, str(data)


def test_a_run_is_served(live, run):
    scores = pl.read_parquet(run / "scores.parquet")
    manifest = live("data/manifest.json").content
    assert manifest["rows"] == scores.height
    assert manifest["sides"] == ["f", "g"]
    names = {one["name"] for one in manifest["columns"]}
    assert {"pca_x", "role", "planted", "captions", "f_alignment", "all_captions"} <= names
    values = np.frombuffer(live("data/columns/clipmem.bin").content, "<f4")
    np.testing.assert_array_equal(values, scores["clipmem"].cast(pl.Float32).to_numpy())
    page = live("").content.decode()
    assert re.search(r'<meta name="token" content="[\w-]{32}">', page)
    assert live("app.js").content


def test_the_detail_of_a_planted_pair(live, run):
    scores, splits = (pl.read_parquet(run / f"{name}.parquet") for name in ("scores", "splits"))
    row = scores.with_row_index("row").filter("planted")["row"][0]
    found = live(f"pairs/{row}.json").content
    uid = scores["uid"][row]
    assert found["uid"] == uid
    assert found["planted"]
    assert found["caption_from"] == splits.filter(uid=uid)["captions_from"].item() != uid
    pairs = dict(pl.read_parquet(run / "pairs.parquet").select("uid", "captions").iter_rows())
    assert [one["text"] for one in found["captions"] if one["trained"]] == pairs[found["caption_from"]][:1]
    assert [one["text"] for one in found["captions"] if not one["trained"]] == pairs[uid]
    by_seed = pl.read_parquet(run / "seed_scores.parquet").filter(uid=uid)
    assert [one["f"] for one in found["seeds"]] == by_seed.sort("seed")["f"].to_list()
    manifest = live("data/manifest.json").content
    assert manifest["noise_floor"] == json.loads((run / "summary.json").read_text())["noise_floor"]["half_width"]
    assert [one["name"] for one in manifest["columns"] if one.get("floor")] == ["clipmem"]
    assert found["parts"]["g"]["positive"] == scores["g_positive"][row]


def test_neighbors_and_thumbnails(live, run):
    for space in ("image", "text"):
        near = live(f"neighbors/3.json?space={space}&side=g&k=5").content
        assert len(near) == 5
        assert 3 not in [one["row"] for one in near]
        assert near == sorted(near, key=lambda one: -one["similarity"])
    answer = live("thumbs/3.webp?size=256")
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, max(image.size) <= 256) == ("WEBP", True)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("route", "options", "status"),
    [
        ("data/manifest.json", {"token": "x" * 32}, 403),
        ("/", {"raw": True}, 403),
        ("", {"headers": {"Host": "evil.example"}}, 403),
        ("", {"headers": {"Host": "127.0.0.1:1"}}, 403),
        ("marks", {"method": "POST", "body": {"row": 0, "mark": "fine"}, "headers": {"X-Clipmem-Token": "guess"}}, 403),
        ("marks", {"method": "POST", "body": {"row": 0, "mark": "great"}}, 400),
        ("marks", {"method": "POST", "body": {"row": 10**6, "mark": "fine"}}, 400),
        ("marks", {"method": "POST", "body": {"row": True, "mark": "fine"}}, 400),
        ("marks", {"method": "POST", "headers": {"Content-Length": "99999999999"}}, 413),
        ("marks", {"method": "DELETE"}, 501),
        ("export", {"method": "POST", "body": {"rows": "all"}}, 400),
        ("data/columns/../manifest.json", {}, 404),
        ("data/columns/..%2f..%2f..%2frecipe.toml.bin", {}, 404),
        ("data/columns/%2e%2e.bin", {}, 404),
        ("../recipe.toml", {}, 404),
        ("data/columns/clipmem.strings.bin", {}, 404),
        ("thumbs/99999999.webp", {}, 400),
        ("thumbs/0.webp?size=5000", {}, 400),
        ("neighbors/0.json?space=sound&side=f", {}, 400),
        ("neighbors/0.json?space=image&side=f&k=1000000", {}, 400),
        ("neighbors/0.json?space=image&side=../../models", {}, 400),
    ],
)
def test_what_is_refused(live, run, route, options, status):
    answer = live(route, **options)
    assert answer.status == status
    assert status == 501 or answer.content["error"]
    assert not (run / "marks.jsonl").exists()


def test_targets_that_are_no_address(live):
    # the client adds a Host header only where it can read the target
    assert live("http://[bad/", raw=True, headers={"Host": "127.0.0.1"}).status == 403


def test_a_mark_is_refused_before_it_is_added(hostile):
    path, _ = hostile
    file = path.with_suffix(".marks.jsonl")
    file.write_text('{"uid": "a", "mark": "new kind"}\n')
    server, ask = serve(path)
    before = file.read_bytes()
    answer = ask("marks", method="POST", body={"row": 0, "mark": "fine"})
    assert (answer.status, file.read_bytes()) == (400, before)
    file.write_text("")
    assert ask("marks", method="POST", body={"row": 0, "mark": "fine", "note": "\ud800"}).status == 200
    assert ask("export", method="POST", body={"rows": [0]}).status == 200
    server.shutdown()
    server.server_close()


def test_every_answer_has_the_policy(live):
    for route in ("", "data/manifest.json", "thumbs/0.webp", "nothing"):
        headers = live(route).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_hostile_captions_stay_text(hostile, tmp_path):
    path, data = hostile
    server, ask = serve(path, data=data)
    with server:
        texts = ask("data/columns/captions.strings.bin").content.decode().split("\0")
        assert len(texts) == len(HOSTILE)
        assert max(map(len, texts)) < 2000
        assert not set("\x1b\u202e\u2066") & set("".join(texts))
        for row in range(len(HOSTILE)):
            assert len(ask(f"pairs/{row}.json").content["captions"][0]["text"]) <= 20_100
        table = pl.read_parquet(ask("export", method="POST", body={"rows": [0, 2]}).content)
        assert table["uid"].to_list() == pl.read_parquet(path)["uid"][[0, 2]].to_list()
        server.shutdown()
    assert clip("view", path, "--data", data, "--export", tmp_path / "out").returncode == 0
    for file in (tmp_path / "out").rglob("*.js"):
        assert file.name == "app.js" or "<" not in file.read_text(encoding="utf-8")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "unsafe" not in page
    assert "token" not in page


def test_an_export_holds_the_same_values(live, run, tmp_path):
    out = tmp_path / "out"
    done = clip("view", run, "--export", out, "--rows", "50")
    assert done.returncode == 0, done.stderr
    assert {one.name for one in out.iterdir()} == {"NOTICE.txt", "app.css", "app.js", "data", "index.html", "thumbs"}
    found = {}
    for file in (out / "data").rglob("*.js"):
        name, value = json.loads(f"[{file.read_text()[len('clipmemData(') :].rstrip()[:-1]}]")
        found[name] = value
    assert found["manifest"]["rows"] == 50
    exported = np.frombuffer(base64.b64decode(found["columns/clipmem"]), "<f4")
    everything = np.frombuffer(live("data/columns/clipmem.bin").content, "<f4")
    np.testing.assert_array_equal(exported, [v for v in everything if v >= np.sort(everything)[-50]])
    details = found["details/0"]
    row = int(np.flatnonzero(everything == exported[7])[0])
    full = live(f"pairs/{row}.json").content
    same = details[7].keys() & full.keys() - {"row"}
    assert {name: details[7][name] for name in same} == {name: full[name] for name in same}
    assert len(same) == 11
    assert [len(details[7]["neighbors"][space][side]) for space in ("image", "text") for side in "fg"] == [10] * 4
    assert len(list((out / "thumbs").iterdir())) == 50
    assert "Unicode" in (out / "NOTICE.txt").read_text()
    sizes = [file.stat().st_size for file in (out / "data" / "columns").iterdir() if "strings" not in file.name]
    assert sum(sizes) <= 110 * 50 + 64 * len(sizes)  # bytes a pair without captions, and what each file begins with
    assert clip("view", run, "--export", out).returncode == 2


def test_lists_and_large_exports(run, tmp_path):
    uids = pl.read_parquet(run / "scores.parquet")["uid"].head(3)
    (tmp_path / "uids.txt").write_text("\n".join(uids))
    assert clip("view", run, "--export", tmp_path / "a", "--uids", tmp_path / "uids.txt").returncode == 0
    assert len(list((tmp_path / "a" / "thumbs").iterdir())) == 3
    (tmp_path / "uids.txt").write_text("unknown")
    for options, text in (
        (["--export", tmp_path / "b", "--uids", tmp_path / "uids.txt"], "unknown uid"),
        (["--export", tmp_path / "b", "--rows", "3", "--all"], "several choices"),
        (["--rows", "3"], "no --export"),
        (["--space"], "no --export"),
        (["--export", tmp_path / "b.html", "--rows", "3", "--space"], "--space: got --export"),
    ):
        done = clip("view", run, *options)
        assert done.returncode == 2
        assert text in done.stderr
    large = tmp_path / "large.parquet"
    pl.DataFrame({"uid": [f"{k:032x}" for k in range(20_001)], "clipmem": 0.0}).write_parquet(large)
    for options, most in (([], 20_000), (["--space"], 10_000), (["--space", "--all"], 10_000)):
        done = clip("view", large, "--export", tmp_path / "c", *options)
        assert done.returncode == 2
        assert f"--rows {most}" in done.stderr
        assert not (tmp_path / "c").exists()


def start(*arguments):
    """Start `clipmem view` in a process of its own; return it and its address."""
    command = [sys.executable, "-m", "clipmem", "view", *map(str, arguments), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port, token = re.search(r"http://127.0.0.1:(\d+)/([\w-]+)/", process.stdout.readline()).groups()
    return process, int(port), token


def post(port, token, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", f"/{token}/marks", json.dumps(body), {"X-Clipmem-Token": token})
    try:
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


@pytest.mark.slow
def test_fifty_marks_survive_a_kill(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("marks.jsonl"))
    process, port, token = start(place)
    expected = {str(row): ("wrong", "memorized", "fine", "unsure")[row % 4] for row in range(50)}
    for row, mark in expected.items():
        marks = post(port, token, {"row": int(row), "mark": mark, "note": "why"})
    assert marks == {row: [mark, None] for row, mark in expected.items()}
    process.kill()
    process.communicate()
    uids = pl.read_parquet(place / "scores.parquet")["uid"]
    assert {uid: one.mark for uid, one in read_marks(place / "marks.jsonl").items()} == {
        uids[int(row)]: mark for row, mark in expected.items()
    }
    process, port, token = start(place)
    changed = [{"row": 0, "mark": None}, {"row": 4, "mark": "wrong", "caption": "a new caption"}]
    others = {row: [mark, None] for row, mark in expected.items() if row != "0"}
    assert post(port, token, changed) == others | {"4": ["wrong", "a new caption"]}
    with socket.create_connection(("127.0.0.1", port)) as closed:  # a browser that is closed while it is answered
        closed.sendall(f"GET /{token}/data/columns/uid.bin HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    done = clip("view", place, "--port", port, "--no-browser")
    assert done.returncode == 2
    assert f"--port {port}" in done.stderr
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "marks.jsonl" in stderr
    assert "Traceback" not in stderr


def test_half_done_newer_and_missing(run, tmp_path):
    place = shutil.copytree(run, tmp_path / "run")
    (place / "seed_scores.parquet").unlink()
    done = clip("view", place)
    assert done.returncode == 2
    assert "not scored yet" in done.stderr
    shutil.copy(run / "seed_scores.parquet", place)
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    done = clip("view", place)
    assert done.returncode == 2
    assert "Update clipmem." in done.stderr
    assert clip("view", tmp_path).returncode == 2
    assert clip("view", run, "--data", "emoji").returncode == 2


def test_images_from_the_cache_where_the_data_are_gone(tmp_path, run, monkeypatch):
    from clipmem.base.errors import InputError
    from clipmem.report import run as reader

    def gone(_):
        raise InputError("data", got="nothing")

    monkeypatch.setattr(reader, "open_source", gone)
    place = shutil.copytree(run, tmp_path / "run")
    server, ask = serve(place)
    with server:
        assert Image.open(io.BytesIO(ask("thumbs/0.webp").content)).format == "WEBP"
        shutil.rmtree(place / "cache")
        server.shutdown()
    server, ask = serve(place)
    with server:
        assert ask("thumbs/0.webp").status == 404
        server.shutdown()
