"""`report.run.Run`: a run folder is read once, by name, and its summary by attribute."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.data.sources import huggingface
from clipmem.report.explorer.subject import Subject, Thumbnails
from clipmem.report.run import Run
from tests.unit.report.run_folder import Built, encoded_image


def test_the_summary_is_the_file_by_attribute(two_seeds: Built) -> None:
    summary = Run(two_seeds.folder).summary
    assert summary.document() == two_seeds.summary
    assert summary.roles["candidate"].mean == two_seeds.summary["roles"]["candidate"]["mean"]
    assert summary.regime is not None
    assert summary.regime.document() == two_seeds.summary["regime"]  # fields that no section reads are kept
    assert summary.dejavu is None


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"seeds": "0"}, "seeds = '0'"),
        ({"roles": {"candidate": {"n": 3, "low": 0.1, "high": 0.2}}}, "no roles.candidate.mean"),
        ({"noise_floor": {"center": 0.1, "half_width": [0.2], "confidence": 0.95}}, "noise_floor.half_width"),
    ],
)
def test_a_field_of_another_type_is_refused(build: Callable[..., Built], change: dict[str, object], got: str) -> None:
    built = build(seeds=(0,))
    (built.folder / "summary.json").write_text(json.dumps({**built.summary, **change}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        _ = Run(built.folder).summary
    assert error.value.what == str(built.folder / "summary.json")
    assert error.value.got.startswith(got)
    assert error.value.expected
    assert error.value.hint


def test_an_older_format_names_the_version_that_reads_it(build: Callable[..., Built]) -> None:
    built = build(seeds=(0,))
    (built.folder / "summary.json").write_text(json.dumps({**built.summary, "format": 1}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        _ = Run(built.folder).summary
    assert error.value.got == "format 1, made by clipmem 0.1.0"
    assert "clipmem 0.1.0" in error.value.hint


def test_a_table_is_read_once(build: Callable[..., Built]) -> None:
    built = build(seeds=(0,))
    run = Run(built.folder)
    assert (run.has("scores"), run.has("localize/units")) == (True, False)
    first = run.scores
    (built.folder / "scores.parquet").unlink()
    assert run.table("scores") is first
    assert not Run(built.folder).has("scores")
    assert run.uids("candidate") == set(built.scores.filter(pl.col("role") == "candidate")["uid"])
    assert run.document("evaluate/utility.json") == {}


def _pairs_in_a_folder(run: Path, images: Path) -> list[str]:
    """Make two pairs of a run those of image files; the second names a private file, by a link and outside the data."""
    images.mkdir()
    private = images.parent / "private.png"
    private.write_bytes(encoded_image(2))
    (images / "0.png").write_bytes(encoded_image(0))
    (images / "0.txt").write_text("a thing")
    (images / "1.png").symlink_to(private)
    (run / "recipe.toml").write_text(f'[data]\nsource = "imagefolder"\npath = "{images}"\n')
    uids = [pair_uid(encoded_image(k), ["a thing"]) for k in (0, 1)]
    pairs = pl.read_parquet(run / "pairs.parquet").head(2)
    pairs = pairs.with_columns(uid=pl.Series(uids), image=pl.Series(["0.png", "1.png"]))
    pairs.write_parquet(run / "pairs.parquet")
    for name in ("scores", "splits"):
        table = pl.read_parquet(run / f"{name}.parquet").head(2).with_columns(uid=pl.Series(uids))
        table.write_parquet(run / f"{name}.parquet")
    splits = pl.read_parquet(run / "splits.parquet").with_columns(captions_from="uid")
    splits.write_parquet(run / "splits.parquet")
    return uids


def test_an_image_is_shown_only_if_it_has_the_hash_of_its_pair(build: Callable[..., Built], tmp_path: Path) -> None:
    folder = build(seeds=(0,)).folder
    uids = _pairs_in_a_folder(folder, tmp_path / "images")
    run = Run(folder)
    assert run.images(uids[:1]) == {uids[0]: encoded_image(0)}
    with pytest.raises(InputError) as error:
        run.images(uids)
    assert uids[1] in error.value.what
    assert error.value.expected
    assert error.value.hint
    (folder / "seed_scores.parquet").unlink(missing_ok=True)
    scores = run.scores.select("uid")
    subject = Subject(folder, run)
    subject.__dict__["scores"] = scores  # the table alone decides which pair is in which row
    shown = [Thumbnails(subject).get(row, 96) is not None for row in range(2)]
    assert shown == [True, False]


def test_nothing_is_downloaded_to_show_a_run(build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(seeds=(0,)).folder
    text = '[data]\nsource = "hub"\npath = "hf-hub:somebody/photos"\ndownload = true\n'
    (folder / "recipe.toml").write_text(text)

    def fetched(*_: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(huggingface, "_fetch", fetched)
    with pytest.raises(InputError) as error:
        _ = Run(folder).source
    assert "data.download" in error.value.hint
