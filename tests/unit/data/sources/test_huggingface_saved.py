"""What Hugging Face `datasets` itself writes: saved folders and its cache; skipped without that library."""

import json
import os
import subprocess
import sys

import pytest

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.base.sections import DataSection
from clipmem.data.sources import detect, open_source
from tests.unit.data.sources.formats import some_pairs

PAIRS = some_pairs(6)
UIDS_OF_TRAIN = [pair_uid(data, own) for _, data, own in PAIRS[:4]]
UIDS = sorted(pair_uid(data, own) for _, data, own in PAIRS)


@pytest.fixture(scope="module")
def datasets():
    library = pytest.importorskip("datasets", reason="needs the extra hf")
    library.disable_progress_bars()
    return library


@pytest.fixture(scope="module")
def dataset(datasets):
    rows = {
        "image": [{"bytes": data, "path": name} for name, data, _ in PAIRS],
        "captions": [own for _, _, own in PAIRS],
        "kind": [k % 2 for k in range(6)],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "captions": datasets.Sequence(datasets.Value("string")),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    return datasets.Dataset.from_dict(rows, features=features)


def uids(path, **settings):
    source = open_source(DataSection(path=str(path), **settings))
    pairs = source.pairs()
    assert source.problems == []
    by_uid = {pair_uid(data, own): data for _, data, own in PAIRS}
    references = pairs["image"].to_list()
    assert source.read(references[::-1]) == [by_uid[uid] for uid in pairs["uid"]][::-1]
    return pairs["uid"].to_list()


def test_a_saved_data_set(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "one", num_shards=2)
    assert detect(str(tmp_path / "one")).format == "saved"
    assert uids(tmp_path / "one") == UIDS
    assert len(uids(tmp_path / "one" / "data-00000-of-00002.arrow")) == 3
    pairs = open_source(DataSection(path=str(tmp_path / "one"), label_column="kind")).pairs()
    assert sorted(pairs["label"]) == ["cat"] * 3 + ["dog"] * 3
    # rows chosen and shuffled before it was saved
    dataset.shuffle(seed=1).select(range(4)).save_to_disk(tmp_path / "some")
    assert len(uids(tmp_path / "some")) == 4


def test_saved_splits(datasets, dataset, tmp_path):
    parts = {"train": dataset.select(range(4)), "test": dataset.select([4, 5])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "all")
    assert detect(str(tmp_path / "all")).reason == "a folder with dataset_dict.json, saved by datasets"
    assert uids(tmp_path / "all") == UIDS
    assert len(uids(tmp_path / "all", split="test")) == 2
    with pytest.raises(InputError) as error:
        uids(tmp_path / "all", split="tests")
    assert (error.value.what, error.value.got, error.value.hint) == ("[data] split", "'tests'", "Did you mean 'test'?")


def test_descriptions_that_lead_elsewhere_are_refused(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "one")
    state = tmp_path / "one" / "state.json"
    described = json.loads(state.read_text())
    messages = {
        "../../etc/passwd": "the name '../../etc/passwd'",
        "gone.arrow": "no file 'gone.arrow' (1 of 1 are missing)",
    }
    for name, text in messages.items():
        state.write_text(json.dumps(described | {"_data_files": [{"filename": name}]}))
        with pytest.raises(InputError) as error:
            uids(tmp_path / "one")
        assert (error.value.what, error.value.got) == (f"{tmp_path / 'one'}", text)
    state.write_text("{")
    with pytest.raises(InputError, match="got no readable state.json, expected a folder saved by datasets"):
        uids(tmp_path / "one")
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"\xff\xff\xff\xffnot arrow")
    with pytest.raises(InputError, match=r"not readable as Arrow \("):
        uids(tmp_path / "one" / "data-00000-of-00001.arrow")


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_prepared_data_set_of_the_hub(datasets, dataset, home, tmp_path):
    from datasets.packaged_modules.parquet.parquet import Parquet

    files = {}
    for split, rows in (("train", range(4)), ("test", [4, 5])):
        files[split] = [str(tmp_path / f"{split}.parquet")]
        dataset.select(rows).to_parquet(files[split][0])
    cache = home / "datasets"
    place = {"cache_dir": str(cache), "dataset_name": "pairs", "config_id": "default", "hash": "0123abcd"}
    Parquet(**place, data_files=files).download_and_prepare()
    (cache / "pairs").rename(cache / "somebody___pairs")  # as for a data set of the hub
    assert detect("hf-hub:somebody/pairs").format == "hub"
    assert uids("hf-hub:somebody/pairs") == UIDS
    assert uids("somebody/pairs", source="hub") == UIDS
    assert uids("hf://datasets/somebody/pairs:default", split="train") == sorted(UIDS_OF_TRAIN)
    with pytest.raises(InputError, match=r"\[data\] split: got 'val', expected one of \['test', 'train'\]"):
        uids("hf-hub:somebody/pairs", split="val")
    with pytest.raises(InputError) as error:
        uids("hf-hub:somebody/pairs:other")
    assert str(error.value) == (
        "[data] path: got hf-hub:somebody/pairs:other, expected one of the configurations ['default']. "
        "Use hf-hub:somebody/pairs:default, for example."
    )


def test_files_of_the_hub_that_were_downloaded(dataset, home):
    snapshot = home / "hub" / "datasets--somebody--pairs" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    dataset.to_parquet(snapshot / "train-00000-of-00001.parquet")
    assert uids("hf-hub:somebody/pairs") == UIDS


def test_what_is_not_on_this_machine_is_named(home, monkeypatch):
    with pytest.raises(InputError) as error:
        uids("hf-hub:somebody/none")
    assert str(error.value) == (
        f"data set 'somebody/none': got no files in {home}/datasets or {home}/hub, expected a data set on this "
        "machine. Set data.download = true (needs `pip install '.[hf]'` and the internet), or copy it there."
    )
    with pytest.raises(InputError) as error:
        uids("hf-hub:a b/../c")
    assert str(error.value) == (
        "[data] path: got 'hf-hub:a b/../c', expected hf-hub:OWNER/NAME. Fix the data set's name."
    )


FETCH = """
from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
try:
    open_source(DataSection(path="hf-hub:somebody/none", download=True))
except InputError as error:
    print(error)
"""


def test_a_download_that_fails_is_one_line(datasets, home):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", FETCH], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("data set 'somebody/none': got a failed download (ConnectionError: ")
    assert done.stdout.endswith(", expected an accessible data set of the hub. Check the name and the connection.\n")


def test_a_download_without_the_extra_names_it(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    with pytest.raises(InputError) as error:
        uids("hf-hub:somebody/none", download=True)
    assert (error.value.got, error.value.expected) == ("no package 'datasets'", "the extra hf")
    assert ".[hf]" in error.value.hint
