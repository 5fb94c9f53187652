"""The example of LightlyStudio against the real library: its server is asked as its page asks it."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from clipmem import load_pairs
from clipmem.base.marks import append_marks, read_marks
from tests.e2e.running import clip
from tests.e2e.test_view_suspects import curated

pytest.importorskip("lightly_studio", reason="LightlyStudio is not installed: it pins another scikit-learn")

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightly_studio_suspects.py"
COUNT, SECONDS = 6, 300
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Studio:
    """LightlyStudio's API, for the data set of the suspects."""

    def __init__(self, port):
        self.address, self.collection = f"http://127.0.0.1:{port}/api", None
        [self.collection] = [entry["collection_id"] for entry in self.ask("collections") if entry["name"] == "suspects"]
        self.path = f"collections/{self.collection}"

    def ask(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.address}/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def samples(self):
        return self.ask(f"{self.path}/images/list", {})["data"]

    def image(self, sample):
        address = f"{self.address.removesuffix('/api')}/images/sample/{sample['sample_id']}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()

    def tag(self, sample, name):
        named = {tag["name"]: tag["tag_id"] for tag in self.ask(f"{self.path}/tags")}
        body = {"name": name, "kind": "sample", "description": ""}
        tag = named.get(name) or self.ask(f"{self.path}/tags", body)["tag_id"]
        self.ask(f"{self.path}/tags/{tag}/add/samples", {"sample_ids": [sample["sample_id"]]})

    def untag(self, sample, name):
        named = {tag["name"]: tag["tag_id"] for tag in self.ask(f"{self.path}/tags")}
        body = {"sample_ids": [sample["sample_id"]]}
        self.ask(f"{self.path}/tags/{named[name]}/remove/samples", body, "DELETE")

    def write(self, sample, caption):
        [old] = sample["captions"]
        self.ask(f"{self.path}/captions/{old['sample_id']}", {"text": caption}, "PUT")


@contextmanager
def studio(*arguments):
    """Start the example as a user does, and end it as one does; yields the API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, EXAMPLE, "the suspects", "--port", str(port), "--no-browser", *arguments]
    log = Path("studio.log")
    with log.open("w") as stream:
        process = subprocess.Popen(list(map(str, words)), stdout=stream, stderr=stream)
    end = time.monotonic() + SECONDS
    try:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                api = Studio(port)
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield api
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        process.kill()


def test_suspects_are_shown_and_decisions_come_back_to_curate(tmp_path, monkeypatch):
    curated(tmp_path, 150, 24)
    monkeypatch.chdir(tmp_path)
    listed = ["curate", "my photos", "--out", "the suspects", "--suspects", "12"]
    assert clip(*listed).returncode == 0
    table = pl.read_parquet("the suspects/suspects.parquet").filter("is_suspect").head(COUNT)
    uids = table["uid"].to_list()
    assert len(uids) == COUNT
    marks_file = Path("the suspects/suspects.marks.jsonl")
    append_marks(marks_file, [(uids[4], "fine", None), (uids[5], "memorized", None)])
    captions = dict(pl.read_parquet("the suspects/ranking.parquet").select("uid", "caption").iter_rows())
    with studio("--count", COUNT) as api:
        samples = api.samples()
        assert [Path(sample["file_name"]).stem.partition("-")[2] for sample in samples] == uids  # in order
        images = dict(load_pairs("my photos").pairs().select("uid", "image").iter_rows())
        for sample, row in zip(samples, table.to_dicts(), strict=True):
            assert api.image(sample) == Path("my photos", images[row["uid"]]).read_bytes()
            assert [caption["text"] for caption in sample["captions"]] == [captions[row["uid"]]]
            facts = sample["metadata_dict"]["data"]
            assert facts["uid"] == row["uid"]
            assert facts["probability"] == pytest.approx(row["probability"])
            assert facts.get("reason") == row["reason"]
        tags = [{tag["name"] for tag in sample["tags"]} for sample in samples]
        assert tags == [{"suspect"}] * 4 + [{"suspect", "fine"}, {"suspect", "memorized"}]
        api.tag(samples[0], "wrong")
        api.write(samples[1], "a better caption")
        api.tag(samples[2], "fine")
        api.tag(samples[3], "fine")
        api.tag(samples[3], "unsure")
        api.untag(samples[4], "fine")
    printed = Path("studio.log").read_text()
    assert "4 marks taken back" in printed
    assert samples[3]["file_name"] in printed.splitlines()[-1]  # contradicts itself
    after = {uid: (mark.mark, mark.caption) for uid, mark in read_marks(marks_file).items()}
    expected = {uids[0]: ("wrong", None), uids[1]: ("wrong", "a better caption"), uids[2]: ("fine", None)}
    assert after == expected | {uids[5]: ("memorized", None)}
    with studio("--count", COUNT) as api:  # nothing is added twice, and nothing taken back twice
        assert len(api.samples()) == COUNT
    assert "0 marks taken back" in Path("studio.log").read_text()
    done = clip(*listed, "--write", "cleaned")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in Path("cleaned/metadata.jsonl").read_text().splitlines()]
    cleaned = [line["text"] for line in lines]
    assert captions[uids[2]] in cleaned
    assert "a better caption" in cleaned
    assert cleaned.count(captions[uids[0]]) == [*captions.values()].count(captions[uids[0]]) - 1
