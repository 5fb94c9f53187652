"""Broken records cost a line each, never the run; the rest is scored as if they had never been there."""

import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import dump_recipe
from clipmem.report.run import STAGES
from tests.e2e.running import Saboteur, clip
from tests.tiny import encoded_image, tiny_recipe

GOOD = 128
SETTINGS = ("train.seeds=[0]", "train.epochs=1", "data.source=parquet", "embed.views=0")


def bomb() -> bytes:
    """An image whose header says 20,000 x 20,000."""
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    return stream.getvalue()


BROKEN = {
    3: (encoded_image(900)[:120], "a cut image", "truncated image"),
    17: (b"", "an empty file", "empty file"),
    40: (b"<html>404</html>", "an error page", "not an image of a known format"),
    77: (bomb(), "a bomb", "too many pixels"),
    99: (encoded_image(901), "", "empty caption"),
}


def write(path, broken):
    """Write good records, and the broken ones between them."""
    rows = [(encoded_image(seed), f"thing number {seed}") for seed in range(GOOD)]
    for place in sorted(broken):
        rows.insert(place, broken[place][:2])
    pl.DataFrame({"image": [data for data, _ in rows], "captions": [text for _, text in rows]}).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A study of good and broken records, and one of the good ones alone."""
    folder = tmp_path_factory.mktemp("skipped")
    made = {}
    for name, broken in (("mixed", BROKEN), ("good", {})):
        path = write(folder / f"{name}.parquet", broken)
        made[name] = clipmem.run(tiny_recipe(*SETTINGS, f"data.path={str(path)!r}"), folder / name)
    return made


def files(run):
    """Bytes of everything that numbers are in; what names the data or was timed is left out."""
    kinds = ("*.safetensors", "*.npy", "*scores.parquet", "splits.parquet")
    return {str(p.relative_to(run.path)): p.read_bytes() for kind in kinds for p in sorted(run.path.rglob(kind))}


@pytest.mark.slow
def test_the_rest_has_the_bytes_of_a_study_without_the_broken_ones(studies):
    mixed, good = files(studies["mixed"]), files(studies["good"])
    assert set(mixed) == set(good)
    assert "cache/pixels.npy" in mixed
    assert [name for name in mixed if mixed[name] != good[name]] == []
    pair_tables = [studies[name].pairs.drop("key", "image") for name in ("mixed", "good")]
    assert pair_tables[0].equals(pair_tables[1])
    without = {"seconds", "records"}
    a, b = (studies[name].summary.model_dump(exclude=without) for name in ("mixed", "good"))
    assert a == b


def test_exactly_the_broken_ones_are_listed(studies):
    listed = pl.read_parquet(studies["mixed"].path / "skipped.parquet")
    assert listed.columns == ["source", "key", "reason"]
    expected = {str(place): reason for place, (_, _, reason) in BROKEN.items()}
    assert dict(zip(listed["key"], listed["reason"], strict=True)) == expected
    assert all(source.endswith("mixed.parquet") for source in listed["source"])
    assert pl.read_parquet(studies["good"].path / "skipped.parquet").height == 0
    assert studies["mixed"].summary.records.document() == {
        "used": GOOD,
        "problems": 5,
        "reasons": dict.fromkeys(sorted(expected.values()), 1),
    }


@pytest.mark.slow
def test_the_count_is_shown_in_the_terminal_and_in_the_report(studies):
    shown = clip("view", studies["mixed"].path, "--report")
    sentence = (
        "5 problems, 128 pairs used: 1 empty caption, 1 empty file, 1 not an image of a known format, "
        "1 too many pixels, 1 truncated image"
    )
    assert f"{sentence}. They are listed in skipped.parquet." in " ".join(shown.stdout.split())
    assert f"{sentence} (listed in skipped.parquet)" in (studies["mixed"].path / "report" / "index.html").read_text()
    assert "pairs used" not in clip("view", studies["good"].path, "--report").stdout


@pytest.mark.slow
def test_strict_stops_at_the_first_with_exit_code_2(studies, tmp_path):
    only_pixels = write(tmp_path / "cut.parquet", {3: BROKEN[3]})
    recipe = tmp_path / "study.toml"
    recipe.write_text(dump_recipe(tiny_recipe(*SETTINGS, f"data.path={str(only_pixels)!r}")))
    done = clip("run", recipe, "--strict", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"clipmem: {only_pixels}, record '3': got truncated image, expected")
    assert not RunFolder(tmp_path / "run").is_done("decode")
    # problems that the source sees stop it before the folder is made
    mixed = studies["mixed"]
    with pytest.raises(InputError, match="record '17': got empty file"):
        clipmem.run(mixed.recipe, tmp_path / "none", strict=True)
    assert not (tmp_path / "none").exists()
    # a folder that was decoded without --strict is not accepted by it afterwards
    there = tmp_path / "there"
    with pytest.raises(InputError, match="stop here"):
        clipmem.run(tiny_recipe(*SETTINGS, f"data.path={str(only_pixels)!r}"), there, reporter=Saboteur("plan", stop))
    with pytest.raises(InputError, match="record '3': got truncated image"):
        clipmem.run(tiny_recipe(*SETTINGS, f"data.path={str(only_pixels)!r}"), there, strict=True)


def stop():
    raise InputError("stop here")


@pytest.mark.slow
def test_too_few_that_are_left_is_said_with_the_reason(tmp_path):
    broken = {place: (encoded_image(900 + place)[:120], f"cut {place}", "") for place in range(10)}
    path = write(tmp_path / "few.parquet", broken)
    settings = (*SETTINGS, f"data.path={str(path)!r}", "split.shared=75")  # 135 of 138, and 128 decode
    with pytest.raises(InputError) as error:
        clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    assert error.value.got == (
        "135 pairs (shared 75 + candidate 20 + independent 20 + external 20), with 128 in the data "
        "(10 problems, 128 pairs used: 10 truncated image)"
    )
    assert error.value.expected == "at most 128 in total"


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_with_the_same_pairs(studies, tmp_path):
    mixed = studies["mixed"]
    with pytest.raises(InputError, match="stop here"):
        clipmem.run(mixed.recipe, tmp_path / "run", reporter=Saboteur("embed", stop))
    again = clipmem.run(mixed.recipe, tmp_path / "run")
    assert files(again) == files(mixed)
    for name in ("pairs", "skipped"):
        assert (again.path / f"{name}.parquet").read_bytes() == (mixed.path / f"{name}.parquet").read_bytes()
    assert set(json.loads((again.path / "summary.json").read_text())["seconds"]) == set(STAGES)


@pytest.mark.slow
def test_mended_data_are_other_data(studies, tmp_path):
    run, path = studies["mixed"], tmp_path / "data.parquet"
    recipe = tiny_recipe(*SETTINGS, f"data.path={str(path)!r}")
    write(path, {3: BROKEN[3]})
    with pytest.raises(InputError, match="stop here"):
        clipmem.run(recipe, tmp_path / "run", reporter=Saboteur("plan", stop))
    write(path, {3: (encoded_image(900), *BROKEN[3][1:])})
    with pytest.raises(InputError, match="was made with other data"):
        clipmem.run(recipe, tmp_path / "run")
    assert run.manifest["data_sha256"] != studies["good"].manifest["data_sha256"]


@pytest.mark.slow
def test_pixels_of_several_sizes_leave_out_the_same_images(tmp_path):
    from clipmem.base.progress import Quiet
    from clipmem.data.decoding import Geometry
    from clipmem.data.sources import open_source
    from clipmem.study.decode_stage import decode_images, write_pairs

    path = write(tmp_path / "data.parquet", BROKEN)
    source = open_source(tiny_recipe(*SETTINGS, f"data.path={str(path)!r}").data)
    folder = RunFolder(tmp_path / "run")
    geometries = [Geometry(16), Geometry(24)]
    caches, usable = decode_images(folder, source.pairs(), source, geometries, reporter=Quiet())
    write_pairs(folder, usable, source, lambda _: None, Quiet())
    small, large = (np.load(file, mmap_mode="r") for file in caches)
    assert small.shape == (GOOD, 16, 16, 3)
    assert large.shape == (GOOD, 24, 24, 3)
    assert folder.read("pairs").height == GOOD
