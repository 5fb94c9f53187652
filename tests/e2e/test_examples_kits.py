"""examples/kits, each on a stand-in in the layout of the data that it is for."""

import io
import json
import re
import shlex
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from clipmem.base.marks import append_marks
from clipmem.data.decoding import decode
from clipmem.data.sources.emoji import emoji_table
from clipmem.models import openclip
from tests.e2e.running import Done
from tests.scripts import load_script
from tests.training import Prepared, train
from tests.unit.data.sources import formats

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KITS, PAGE = ROOT / "examples" / "kits", (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")


def documented(name, places):
    """The command line of a kit on its page, with other paths."""
    [line] = re.findall(rf"^python examples/kits/{name}\.py (.*)$", PAGE, flags=re.MULTILINE)
    words = shlex.split(line)
    assert set(places) < set(words)
    return [name, *(places.get(word, word) for word in words)]


@pytest.fixture
def run(capsys):
    """A kit in this process."""

    def call(name, *words):
        code = 0
        try:
            load_script(KITS / f"{name}.py").main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


def drawings(n, *, captions=5):
    """Emoji as (name, bytes, captions)."""
    table = emoji_table().unique("unicode", keep="first", maintain_order=True).head(n)
    rows = zip(table["image"].to_list(), table["captions"].to_list(), strict=True)
    return [(f"{k:012d}.webp", image["bytes"], texts[:captions]) for k, (image, texts) in enumerate(rows)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with random weights, as an open_clip checkpoint."""
    folder = tmp_path_factory.mktemp("model") / "micro"
    openclip.create("clipmem-micro", seed=1).save(folder)
    return folder


@pytest.mark.parametrize("layout", [formats.coco, formats.flickr_token])
def test_photographs(run, model, tmp_path, layout):
    n, out, path = 210, tmp_path / "out", layout(tmp_path / "data", drawings(210))
    places = {"coco/annotations/captions_train2017.json": path, "ViT-B-32-quickgelu/openai": model}
    words = (*documented("photographs", places), "--out", out, "--swap", 0.2)
    done = run(*words, "--sample", 200)
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "findings.json").read_text())
    assert document["data"]["pairs"] == document["curate"]["pairs"] == n
    assert document["captions_per_pair"] > 2
    for row in document["swapped"].values():
        assert (row["pairs"], row["swapped"]) == (200, 40)
        assert row["swapped_suspects"] <= row["suspects"]
        assert row["auroc"]["curate"]["low"] > 0.55  # a random model adds nothing; pixels and words tell
        assert row["precision_at_swapped"] > 0.3  # by chance .2
    assert list(document["swapped"]["with the model"]["auroc"]) == ["curate", "similarity"]
    assert list(document["swapped"]["pixels and words"]["auroc"]) == ["curate"]
    listed = pl.read_csv(out / "list.csv")
    assert listed.height == document["curate"]["suspects"]
    assert pl.read_parquet(out / "scores.parquet")["uid"].n_unique() == n
    assert -1 < document["rank_correlation_of_both_scores"]["spearman"] < 1
    # what is sent back names no pair
    sent = "".join((out / f"findings.{end}").read_text() for end in ("json", "md"))
    assert str(tmp_path) not in sent
    assert not any(text in sent for _, _, texts in drawings(n) for text in texts if len(text) > 12)
    if layout is not formats.coco:
        return
    # again, after a review
    ranking = pl.read_parquet(out / "curated" / "suspects.parquet")["uid"].to_list()
    marks = zip(ranking, ("wrong", "wrong", "fine"), (None, None, None), strict=False)
    append_marks(out / "curated" / "suspects.marks.jsonl", marks)
    again = run(*words, "--sample", 200)
    assert again.returncode == 0, again.stderr
    after = json.loads((out / "findings.json").read_text())
    assert after["swapped"] == document["swapped"]
    assert after["curate"]["reviewed"] == {"marked": 3, "mismatched": 2}
    assert "Reviewed: 3, mismatched: 2." in again.stdout


def test_photographs_without_their_images(run, model, tmp_path):
    path = formats.coco(tmp_path / "data", drawings(120))
    shutil.rmtree(path.parent.parent / "train2017")
    done = run("photographs", path, "--model", model, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert not (tmp_path / "out" / "findings.json").exists()


def write_tars(folder, pairs, first, count):
    """Tars with jpg and txt, as CLIP-MIA-Bench and img2dataset write them."""
    folder.mkdir(parents=True)
    for number in range(count):
        with tarfile.open(folder / f"{first + number:08d}.tar", "w") as tar:
            for key, (image, caption) in enumerate(pairs[number::count]):
                for ending, data in (("jpg", image), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{first + number:05d}{key:04d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def as_jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(decode(image, 64)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The folder of CLIP-MIA-Bench with 4 and 4 tars of emoji, drawn at random, and a small model of the members."""
    root, pairs = tmp_path_factory.mktemp("bench"), [(as_jpeg(image), texts[0]) for _, image, texts in drawings(800)]
    order = np.random.default_rng(0).permutation(len(pairs))
    members, others = ([pairs[row] for row in rows] for rows in (order[:400], order[400:]))
    data = root / "clip-mia-bench-data" / "data"
    write_tars(data / "member", members, 1, 4)
    write_tars(data / "nonmember", others, 43001, 4)
    encoder = openclip.create("clipmem-micro", seed=0)
    train(encoder, Prepared.of(encoder, *zip(*members, strict=True)), steps=300, lr=2e-3)
    folder = root / "clip-mia-bench-models" / "model" / "4M" / "checkpoints"
    folder.mkdir(parents=True)
    state = {f"module.{name}": tensor for name, tensor in encoder.module.state_dict().items()}
    torch.save({"epoch": 1, "name": "4M", "state_dict": state}, folder / "epoch_latest.pt")
    return root


def test_clip_mia_bench(run, bench, tmp_path):
    words = documented("clip_mia_bench", {"CLIP-MIA-Bench": bench, "400M": "4M"})
    done = run(*words, "--model", "clipmem-micro", "--out", tmp_path / "out", "--audit")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (document["members"], document["nonmembers"], document["in_both"]) == (300, 300, 0)
    rows = document["attacks"]
    assert list(rows) == [*document["names"], "margin"]
    for row in rows.values():
        assert row["auc"]["low"] <= row["auc"]["mean"] <= row["auc"]["high"]
        assert 0 <= row["tpr"]["low"] <= row["tpr"]["mean"] <= row["tpr"]["high"] <= 1
    blind = rows["words alone"]["auc"]
    assert blind["low"] < 0.5 < blind["high"]  # members were drawn at random
    for name in ("similarity", "similarity, dropout", "margin"):
        assert rows[name]["auc"]["low"] > 0.6, name  # the model has memorized them
    for name in ("weak supervision", "loss and gradient"):
        assert rows[name]["auc"]["low"] > 0.5, name
    assert rows["similarity, dropout"] != rows["similarity"]
    audited = document["audit"]
    assert audited["cosine"]["auc"]["mean"] == pytest.approx(rows["similarity"]["auc"]["mean"], abs=1e-4)
    for row in (*document["names"].values(), "audit: gradient"):
        assert f"| {row} |" in done.stdout


def test_clip_mia_bench_without_its_files(run, bench, tmp_path):
    for root, scale, complaint in ((tmp_path, "4M", "member: got 0 tars"), (bench, "40M", "epoch_latest.pt")):
        done = run("clip_mia_bench", root, "--scale", scale, "--model", "clipmem-micro", "--out", tmp_path / "out")
        assert done.returncode == 2
        assert complaint in done.stderr


class Pool(NamedTuple):
    """Metadata and tars of DataComp: uids by pair, and those of the pairs with the caption of another one."""

    metadata: Path
    shards: Path
    uids: list[str]
    swapped: set[str]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Emoji as DataComp lays them out; the embeddings are of one-hot concepts, with noise."""
    root, pairs, stream = tmp_path_factory.mktemp("datacomp"), drawings(300), np.random.default_rng(0)
    uids = [bytes(stream.integers(0, 256, 16, dtype=np.uint8)).hex() for _ in pairs]
    captions, rows = [texts[0] for _, _, texts in pairs], stream.permutation(300)[:30]
    concept = stream.integers(0, 20, 300)
    told = concept.copy()
    told[rows] = (concept[rows] + 7) % 20
    captions = [f"a photo of kind {chr(97 + kind)}, {text}" for kind, text in zip(told, captions, strict=True)]
    metadata, shards = root / "metadata" / "small", root / "shards" / "small"
    metadata.mkdir(parents=True)
    shards.mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(300), 3)):
        names = [uids[row] for row in part]
        texts = [captions[row] for row in part]
        table = pl.DataFrame({"uid": names, "url": ["u"] * len(part), "text": texts, "clip_l14_similarity_score": 0.2})
        table.write_parquet(metadata / f"{number:032x}.parquet")
        arrays = {
            f"{arch}_{key}": (np.eye(width)[kinds[part]] + stream.normal(0, 0.05, (len(part), width))).astype(
                np.float16
            )
            for arch, width in (("b32", 24), ("l14", 32))
            for key, kinds in (("img", concept), ("txt", told))
        }
        np.savez(metadata / f"{number:032x}.npz", **arrays)
        with tarfile.open(shards / f"{number:08d}.tar", "w") as tar:
            for row in part:
                content = {"uid": uids[row], "caption": captions[row], "key": f"{row:09d}", "status": "success"}
                files = {
                    "jpg": as_jpeg(pairs[row][1]),
                    "txt": captions[row].encode(),
                    "json": json.dumps(content).encode(),
                }
                for ending, data in files.items():
                    member = tarfile.TarInfo(f"{row:09d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        (shards / f"{number:08d}_stats.json").write_text(json.dumps({"successes": len(part)}))
    return Pool(metadata, shards, uids, {uids[row] for row in rows})


def resharded(file, uids):
    """How often DataComp's resharder writes each sample: it counts its uid in the sorted list, by bisection."""
    subset = np.load(file, mmap_mode="r")
    assert subset.dtype == np.dtype("u8,u8")
    keys = np.array([divmod(int(uid, 16), 2**64) for uid in uids], np.dtype("u8,u8"))
    left, right = (np.searchsorted(subset, keys, side) for side in ("left", "right"))
    return dict(zip(uids, (right - left).tolist(), strict=True))


def test_datacomp_metadata(run, pool, tmp_path):
    out = tmp_path / "keep.npy"
    words = ("datacomp", pool.metadata, "--out", out, "--arch", "b32", "--block", 100, "--suspects", 10)
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:-1]] == ["block 0", "block 1", "block 2"]
    counts = resharded(out, pool.uids)
    assert set(counts.values()) == {0, 1}
    gone = {uid for uid, count in counts.items() if not count}
    listed = pl.read_parquet(tmp_path / "keep-suspects.parquet")
    assert set(listed["uid"]) == gone
    assert listed["probability"].is_sorted(descending=True)
    # the captions contradict the embeddings of their images
    assert len(gone) == 30
    assert len(gone & pool.swapped) >= 20
    assert run(*words).stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_datacomp_starts_from_a_list(run, pool, tmp_path):
    """A uid that is listed twice stays twice; pairs outside the list are neither compared nor listed."""
    subset = np.array([divmod(int(uid, 16), 2**64) for uid in [*pool.uids[:220], *pool.uids[:110]]], np.dtype("u8,u8"))
    subset.sort()
    np.save(tmp_path / "subset.npy", subset)
    subset.tofile(tmp_path / "subset.bin")  # as a memory map
    for name in ("subset.npy", "subset.bin"):
        out = tmp_path / f"{name}-keep.npy"
        places = {"metadata/small": pool.metadata, "in.npy": tmp_path / name, "keep.npy": out}
        done = run(*documented("datacomp", places), "--suspects", 20)
        assert done.returncode == 0, done.stderr
        counts = resharded(out, pool.uids)
        gone = set(pl.read_parquet(out.with_name(f"{out.stem}-suspects.parquet"))["uid"])
        assert len(gone & pool.swapped) >= 10
        assert counts == {
            uid: 0 if uid in gone or number >= 220 else 2 if number < 110 else 1 for number, uid in enumerate(pool.uids)
        }


def test_datacomp_shards(run, pool, tmp_path):
    """Uids are those of the JSON, also of a sample that is there again with another one."""
    again = tmp_path / "shards"
    shutil.copytree(pool.shards, again)
    with tarfile.open(again / "00000000.tar") as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()[:3]]
    other = "f" * 32
    with tarfile.open(again / "00000003.tar", "w") as tar:
        for member, data in members:
            content = json.dumps({**json.loads(data), "uid": other}).encode() if member.name.endswith("json") else data
            member.name, member.size = f"000000999.{member.name.rpartition('.')[2]}", len(content)
            tar.addfile(member, io.BytesIO(content))
    out = tmp_path / "keep.npy"
    done = run("datacomp", again, "--out", out, "--suspects", 30)
    assert done.returncode == 0, done.stderr
    counts = resharded(out, [*pool.uids, other])
    gone = {uid for uid, count in counts.items() if not count}
    assert gone == set(pl.read_parquet(tmp_path / "keep-suspects.parquet")["uid"])
    assert len(gone) in (30, 31)
    assert counts[pool.uids[0]] == counts[other]


def test_what_datacomp_refuses(run, pool, tmp_path):
    np.save(tmp_path / "wrong.npy", np.arange(5))
    for words, complaint in (
        ((pool.metadata, "--out", tmp_path / "keep.txt"), ".npy"),
        ((tmp_path / "none", "--out", tmp_path / "keep.npy"), "no such folder"),
        ((pool.metadata, "--out", tmp_path / "keep.npy", "--subset", tmp_path / "wrong.npy"), "dtype int64"),
        ((pool.metadata, "--out", tmp_path / "keep.npy", "--subset", tmp_path / "none.npy"), "none.npy"),
    ):
        done = run("datacomp", *words)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert not (tmp_path / "keep.npy").exists()
