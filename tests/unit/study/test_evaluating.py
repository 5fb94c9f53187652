"""Labeled data of `clipmem evaluate`: the format is told by content."""

from functools import partial

import polars as pl
import pytest
from torch.nn.attention import _cur_sdpa_kernel_backends

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe
from clipmem.base.sections import EvaluateSection
from clipmem.data.sources import open_source
from clipmem.models import openclip
from clipmem.models.protocol import geometry_of
from clipmem.study import evaluating
from clipmem.study.evaluating import TestedModel
from clipmem.study.execution import Execution
from clipmem.study.opening import evaluation_section
from tests.tiny import write_parquet

CLASSES = ["a", "b"] * 3


@pytest.fixture
def folder(tmp_path):
    write_parquet(tmp_path / "made.parquet", 6)
    made = pl.read_parquet(tmp_path / "made.parquet")["image"]
    images = [one["bytes"] if isinstance(one, dict) else one for one in made]
    (tmp_path / "made.parquet").unlink()
    pl.DataFrame({"image": images, "label": CLASSES}).write_parquet(tmp_path / "labels.parquet")
    captions = [f"image {k}" for k in range(6)]
    pl.DataFrame({"image": images, "caption": captions, "class": CLASSES}).write_parquet(tmp_path / "both.parquet")
    rows = ["filepath,label"]
    for k, (image, label) in enumerate(zip(images, CLASSES, strict=True)):
        file = tmp_path / "classes" / label / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
        rows.append(f"classes/{label}/{k}.png,{label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "label", "source", "captions_are_labels"),
    [
        ("labels.parquet", None, "parquet", True),
        ("both.parquet", "class", "parquet", False),
        ("classes", None, "classfolder", True),
        ("labels.csv", None, "csv", True),
    ],
)
def test_labels_and_captions_are_found(folder, name, label, source, captions_are_labels):
    section = evaluation_section({"path": str(folder / name)} | ({"label_column": label} if label else {}))
    assert section.source == source
    opened = open_source(section)
    pairs = opened.pairs()
    assert sorted(pairs["label"]) == sorted(CLASSES)
    assert opened.problems == []
    assert (pairs["captions"].list.first() == pairs["label"]).all() == captions_are_labels


@pytest.mark.parametrize("name", ["made.parquet", "made.csv", "texts"])
def test_data_without_labels_are_read_without_them(folder, name):
    table = pl.read_parquet(folder / "both.parquet")
    table.drop("class").write_parquet(folder / "made.parquet")
    files = sorted((folder / "classes").rglob("*.png"))
    rows = [f"{file.relative_to(folder)},thing {file.stem}" for file in files]
    (folder / "made.csv").write_text("\n".join(["filepath,caption", *rows]) + "\n")
    (folder / "texts").mkdir()
    for file in files:
        (folder / "texts" / file.name).write_bytes(file.read_bytes())
        (folder / "texts" / f"{file.stem}.txt").write_text(f"thing {file.stem}")
    section = evaluation_section(folder / name)
    source, pairs, _ = evaluating.tested_source(Recipe(data=section), frozenset(), "--data")
    assert (pairs.height, set(pairs["label"]), source.section.label_column) == (6, {""}, "")
    # a column that the user named must be there
    with pytest.raises(InputError, match="'kind'"):
        evaluating.tested_source(
            Recipe(data=evaluation_section({"path": str(folder / name), "label_column": "kind"})), frozenset(), "--data"
        )


def test_images_are_decoded_once_per_geometry_and_attention_is_left_as_it_was(folder, monkeypatch):
    encoders = [openclip.create(name, seed=1) for name in ("clipmem-micro", "clipmem-tiny", "clipmem-tiny")]
    assert len({geometry_of(one) for one in encoders}) == 2
    models = [TestedModel(f"m{k}", 0, partial(lambda one: one, one)) for k, one in enumerate(encoders)]
    decoded, build = [], evaluating.build_cache
    monkeypatch.setattr(evaluating, "build_cache", lambda file, *a, **k: decoded.append(file) or build(file, *a, **k))
    before = _cur_sdpa_kernel_backends()
    document = evaluating.evaluate_source(
        models,
        Recipe(
            data=evaluation_section({"path": str(folder / "both.parquet"), "label_column": "class"}),
            evaluate=EvaluateSection(labels="none"),
        ),
        left_out=frozenset(),
        resources=Execution("cpu", "fp32", 1, 3),
    )
    assert len(decoded) == 2
    assert list(document["metrics"]) == ["m0", "m1", "m2"]
    assert document["metrics"]["m1"] == document["metrics"]["m2"] != document["metrics"]["m0"]
    assert _cur_sdpa_kernel_backends() == before


def test_nothing_there(folder):
    with pytest.raises(InputError) as caught:
        evaluation_section(folder / "nothing")
    assert str(caught.value).startswith(f"[data] path: got '{folder / 'nothing'}', no such file or folder, expected")


def test_emoji_is_the_shipped_data_unless_a_file_has_the_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    section = evaluation_section("emoji")
    assert (section.source, section.path) == ("emoji", "")
    (folder / "classes").rename(folder / "emoji")
    section = evaluation_section("emoji")
    assert (section.source, section.path) == ("classfolder", "emoji")
