"""The examples of docs/data.md: each parses, finds its format, and gives pairs on made files."""

import re
from pathlib import Path

import pytest

from clipmem.base.recipes import load_recipe
from clipmem.data.sources import SOURCES, detect, open_source
from tests.unit.data.sources import formats
from tests.unit.data.sources.formats import some_pairs

DOCS = Path(__file__).parents[2] / "docs" / "data.md"
EXAMPLES = dict(re.findall(r"<!-- example: ([\w-]+).*?-->\n```toml\n(.*?)```", DOCS.read_text(), re.S))

SHIPPED = "emoji-artists"
SHIPPED_EXAMPLE = EXAMPLES.pop(SHIPPED)


def write(name, folder):
    pairs = some_pairs(8)
    match name:
        case "imagefolder":
            formats.imagefolder_csv(folder / "pets", pairs)
        case "csv":
            formats.write_images(folder / "cc3m", pairs)
            formats.write_csv(folder / "cc3m" / "train.tsv", ("filepath", "title"), pairs, "\t")
        case "jsonl":
            path = formats.jsonl_file(folder, pairs)
            path.write_text(path.read_text().replace('"image"', '"photo"').replace('"caption"', '"alt"'))
        case "coco":
            formats.coco(folder / "coco", pairs)
        case "karpathy":
            formats.karpathy(folder / "coco", pairs)
        case "flickr":
            formats.flickr_token(folder / "flickr8k", pairs)
        case "webdataset":
            formats.webdataset(folder / "laion", pairs)
        case "parquet":
            formats.parquet_labels(folder / "flickr30k" / "data", pairs)
        case "saved":
            formats.saved(folder / "saved", pairs)
        case "hub":
            home = folder / "home" / "hub" / "datasets--somebody--pairs" / "snapshots" / "0123abcd"
            formats.parquet_struct(home, pairs)


def test_every_format_has_an_example():
    # folders of classes have no captions: they are named outright, and only `clipmem evaluate` guesses them
    ours = {name for name in SOURCES if SOURCES[name].__module__.startswith("clipmem.")}
    assert set(EXAMPLES) | {SHIPPED} == ours - {"emoji", "classfolder"}
    assert {name for name in SOURCES if f"| `{name}` |" in DOCS.read_text()} == ours


@pytest.mark.slow
def test_the_shipped_example_has_the_drawings_of_its_artists():
    section = load_recipe(SHIPPED_EXAMPLE).data
    pairs = open_source(section).pairs()
    assert set(pairs["key"].str.split("_").list.last()) == set(section.emoji_artists.artists)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for variable in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    write(name, tmp_path)
    section = load_recipe(EXAMPLES[name]).data
    assert detect(section.path, section).format == name
    source = open_source(section)
    pairs = source.pairs()
    assert pairs.height == (4 if name == "karpathy" else 8)
    assert source.problems == []
    assert len(source.read(pairs["image"].to_list())) == pairs.height
