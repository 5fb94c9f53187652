"""The example of other tools, against the real libraries: what comes out is read by them, and by clipmem."""

import io
import json
from pathlib import Path

import pytest

from clipmem.base.hashing import image_part
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from tests.unit.data.sources import formats


@pytest.fixture(scope="module")
def tools():
    import sys

    folder = str(Path(__file__).parents[2] / "examples")
    sys.path.insert(0, folder)
    import other_tools

    yield other_tools
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def chosen(finished):
    """Ten pairs of a run as (name, bytes, captions), with their uids; the first three are to be removed."""
    rows = finished.scores.sort("clipmem", "uid", descending=[True, False]).head(10)
    captions = dict(finished.pairs.select("uid", "captions").iter_rows())
    images = finished.images(rows["uid"].to_list())
    return rows["uid"].to_list(), [
        (f"{k}.webp", one, list(captions[uid])) for k, (uid, one) in enumerate(images.items())
    ]


def images_of(path):
    """The hashes of the images that clipmem reads."""
    return {image_part(uid) for uid in open_source(DataSection.model_validate({"path": str(path)})).pairs()["uid"]}


def test_datasets_in_and_out(finished, chosen, tools, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    uids, pairs = chosen
    rows = [({"bytes": image, "path": None}, caption) for _, image, captions in pairs for caption in captions[:2]]
    rows.append(({"bytes": formats.some_pairs(1)[0][1], "path": None}, "another image"))
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    data = {"image": [image for image, _ in rows], "caption": [caption for _, caption in rows]}
    scored = tools.with_scores(datasets.Dataset.from_dict(data, features=features), finished)
    assert set(scored["uid"]) == {*uids, None}
    known = dict(finished.scores.select("uid", "clipmem").iter_rows())
    assert scored["clipmem"] == [known.get(uid) for uid in scored["uid"]]
    cleaned = tools.without(scored, set(uids[:3]))
    assert len(cleaned) < len(scored) == len(rows)
    cleaned.save_to_disk(tmp_path / "cleaned")
    assert images_of(tmp_path / "cleaned") >= {image_part(uid) for uid in uids[3:]}
    assert not images_of(tmp_path / "cleaned") & {image_part(uid) for uid in uids[:3]}


def test_pandas(finished, tools):
    pytest.importorskip("pandas", reason="the extra bench is not installed")
    table = tools.as_pandas(finished)
    assert len(table) == finished.scores.height
    assert table["clipmem"].is_monotonic_decreasing
    assert table.groupby("role")["clipmem"].mean()["candidate"] == pytest.approx(
        finished.summary.roles["candidate"].mean
    )


# these libraries leave files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_webdataset_without_pairs(finished, chosen, tools, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the extra bench is not installed")
    uids, pairs = chosen
    tars = sorted(formats.webdataset(tmp_path / "tars", pairs).glob("*.tar"))
    assert tools.tars_without(tars, tmp_path / "kept", set(uids[:3]), finished) == 7
    kept = sorted((tmp_path / "kept").glob("*.tar"))
    assert [tar.name for tar in kept] == [tar.name for tar in tars]
    samples = [one for tar in kept for one in webdataset.WebDataset(str(tar), shardshuffle=False)]
    assert {one["webp"] for one in samples} == {image for _, image, _ in pairs[3:]}
    assert images_of(tmp_path / "kept") == {image_part(uid) for uid in uids[3:]}


# these libraries leave files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_open_clips_csv_without_pairs(finished, chosen, tools, tmp_path):
    pd = pytest.importorskip("pandas", reason="the extra bench is not installed")
    from PIL import Image

    uids, pairs = chosen
    formats.write_images(tmp_path, pairs)
    table = formats.write_csv(tmp_path / "train.tsv", ("filepath", "title"), pairs, "\t")
    kept = tools.csv_without(table, tmp_path / "kept.tsv", set(uids[:3]), finished)
    assert (
        kept == sum(len(captions) for _, _, captions in pairs[3:]) == len(pd.read_csv(tmp_path / "kept.tsv", sep="\t"))
    )
    assert images_of(tmp_path / "kept.tsv") == {image_part(uid) for uid in uids[3:]}
    # open_clip's own reader of such files
    data = pytest.importorskip("open_clip_train.data", reason="open_clip's trainer is not installed")
    frame = pd.read_csv(tmp_path / "kept.tsv", sep="\t")
    frame["filepath"] = [str(tmp_path / name) for name in frame["filepath"]]
    frame.to_csv(tmp_path / "absolute.tsv", sep="\t", index=False)
    read = data.CsvDataset(
        str(tmp_path / "absolute.tsv"),
        lambda image: image.size,
        "filepath",
        "title",
        "\t",
        tokenizer=lambda texts: texts,
    )
    assert len(read) == kept
    assert read[0][0] == Image.open(io.BytesIO(pairs[3][1])).size


def test_samples_of_fiftyone(finished, tools, tmp_path):
    count = tools.fiftyone_samples(finished, tmp_path / "samples.json")
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    assert count == len(samples) == finished.scores["clipmem"].count()
    assert all(set(one) == {"filepath", "tags", "uid", "clipmem", "captions"} for one in samples)
