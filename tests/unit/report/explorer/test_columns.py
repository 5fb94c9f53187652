"""Column files give back the tables they were made of; stale ones are made again."""

import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.report.explorer.columns import MISSING, TEXT_LIMIT, Columns, _column, _text
from clipmem.report.explorer.subject import open_subject
from tests.tiny import write_parquet

UIDS = [f"{k // 2:016x}{k:016x}" for k in range(6)]


def table(path, **columns):
    pl.DataFrame({"uid": UIDS, **columns}).write_parquet(path)
    return path


def texts_of(column):
    unique = column.strings.decode().split("\0")
    return [None if code == MISSING else unique[code] for code in column.values]


@settings(max_examples=40)
@given(st.lists(st.none() | st.floats(width=32, allow_infinity=False), min_size=1))
def test_numbers_come_back(values):
    column = _column(pl.Series("x", values, dtype=pl.Float64, strict=False).fill_nan(None))
    expected = np.array([np.nan if v is None else v for v in values], dtype=np.float32)
    if np.isnan(expected).all():
        assert column is None
        return
    np.testing.assert_array_equal(column.values, expected)
    assert column.about["missing"] == np.isnan(expected).sum()
    assert (column.about["min"], column.about["max"]) == (np.nanmin(expected), np.nanmax(expected))


@settings(max_examples=40)
@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1))
def test_equal_texts_have_equal_codes(values):
    column = _text(pl.Series("x", values, dtype=pl.String))
    shown = texts_of(column)
    for text, own in zip(values, shown, strict=True):
        assert (own is None) == (text is None)
        assert own is None or not set(own) & set("\0\x1f\n\u202e")
    assert [a == b for a in values for b in values] == [a == b for a in column.values for b in column.values]


def test_lists_of_captions_are_joined_and_cut():
    series = pl.Series("captions", [["a\0b", "c"], None, [], ["x" * 3000], ["a\0b", "c"]])
    first, missing, empty, long, again = texts_of(_text(series))
    assert first == again == "a\u2400b\x1fc"
    assert missing is None
    assert empty == ""
    assert len(long) == TEXT_LIMIT + 1


@pytest.mark.parametrize(("count", "kind", "none"), [(3, "u1", 255), (254, "u1", 255), (300, "<u2", 65535)])
def test_categories(count, kind, none):
    names = [f"n{k:03}" for k in range(count)]
    column = _column(pl.Series("role", [*names, *names, None, ""]))
    assert column.values.dtype == np.dtype(kind)
    assert [column.about["categories"][code] for code in column.values[:count]] == names
    assert column.values[2 * count :].tolist() == [none, none]


def test_a_table_becomes_files(tmp_path):
    path = table(
        tmp_path / "scores.parquet",
        clipmem=[0.5, None, -1.0, float("nan"), 2.0, 0.0],
        stderr=[0.1] * 6,
        is_suspect=[True, False, None, True, True, False],
        kind=["vague", None, "mismatched", "vague", "", "vague"],
        words_score=[1, 2, 3, 4, 5, 6],
        empty=[None] * 6,
        neighbors=[[UIDS[0]]] * 6,
    )
    columns = Columns(open_subject(path))
    assert columns.uids == UIDS
    assert columns.row_of[UIDS[3]] == 3
    assert list(columns.by_name) == ["uid", "image_group", "clipmem", "is_suspect", "kind", "words_score", "stderr"]
    assert columns.by_name["clipmem"]["error"] == "stderr"
    assert columns.by_name["words_score"]["group"] == "detector"
    np.testing.assert_array_equal(columns.values("clipmem"), np.float32([0.5, np.nan, -1, np.nan, 2, 0]))
    assert columns.values("is_suspect").tolist() == [1, 0, 255, 1, 1, 0]
    assert columns.values("image_group").tolist() == [1, 1, 2, 2, 3, 3]
    assert columns.manifest["sort"]["column"] == "clipmem"
    assert not columns.manifest["thumbnails"]


@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "a/b", "a\\b", "a\0b", "a.strings"])
@pytest.mark.parametrize("pivoted", [False, True])
def test_no_column_is_a_path(tmp_path, name, pivoted):
    (tmp_path / "in" / "side").mkdir(parents=True)
    columns = {"estimator": [name] * 6, "score": range(6), "stderr": range(6)} if pivoted else {name: range(6)}
    path = table(tmp_path / "in" / "side" / "scores.parquet", **columns)
    with pytest.raises(InputError) as error:
        Columns(open_subject(path))
    assert error.value.got == f"a column {name!r}"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_what_is_no_number_is_missing_or_left_out(tmp_path):
    inf = float("inf")
    path = table(
        tmp_path / "scores.parquet",
        score=[inf, 1.0, -inf, 1e300, float("nan"), 2.0],
        exact=[Decimal("1.5")] * 6,
        large=[2**40, 1, 2, 3, 4, 5],
        day=[date(2026, 1, 1)] * 6,
        raw=[b"x"] * 6,
        parts=[{"a": 1}] * 6,
    )
    columns = Columns(open_subject(path))
    assert list(columns.by_name) == ["uid", "image_group", "score", "exact", "large"]
    np.testing.assert_array_equal(columns.values("score"), np.float32([np.nan, 1, np.nan, np.nan, np.nan, 2]))
    assert (columns.by_name["score"]["max"], columns.by_name["score"]["missing"]) == (2.0, 4)
    assert (columns.by_name["large"]["max"], columns.by_name["large"]["missing"]) == (5, 1)


def test_files_are_kept_until_the_table_changes(tmp_path):
    path = table(tmp_path / "scores.parquet", clipmem=range(6))
    folder = Columns(open_subject(path)).folder
    time = (folder / "clipmem.bin").stat().st_mtime_ns
    assert Columns(open_subject(path)).folder == folder
    assert (folder / "clipmem.bin").stat().st_mtime_ns == time
    table(path, clipmem=[float(k) for k in range(6)])
    os.utime(path, ns=(1, 1))
    assert Columns(open_subject(path)).values("clipmem").dtype == np.float32
    assert [one.name for one in folder.parent.iterdir()] == ["columns"]
    (folder / "manifest.json").write_text("{")
    assert Columns(open_subject(path)).manifest["rows"] == 6


def test_estimators_become_columns(tmp_path):
    rows = {"uid": [*UIDS, *UIDS], "estimator": ["raw"] * 6 + ["lemon"] * 6, "score": range(12), "stderr": [0.1] * 12}
    pl.DataFrame(rows).write_parquet(tmp_path / "scores.parquet")
    columns = Columns(open_subject(tmp_path / "scores.parquet"))
    assert columns.values("lemon").tolist() == list(range(6, 12))
    assert columns.by_name["raw"]["error"] == "raw_stderr"


def test_change_between_two_tables(tmp_path):
    a = table(tmp_path / "a.parquet", clipmem=[1.0, 2, 3, 4, 5, 6])
    b = tmp_path / "b.parquet"
    pl.DataFrame({"uid": UIDS[:0:-1], "clipmem": [0.5] * 5}).write_parquet(b)
    columns = Columns(open_subject(a, compare_with=b))
    np.testing.assert_array_equal(columns.values("clipmem_change"), np.float32([np.nan, 1.5, 2.5, 3.5, 4.5, 5.5]))
    assert columns.manifest["compare"]["pairs"] == [["clipmem", "clipmem_other"]]


def test_alignment_of_given_models_has_the_weight_of_the_sidecar(tmp_path):
    parts = {f"{s}_{p}": [v] * 6 for s in "fg" for p, v in (("positive", 0.9), ("image_bank", 0.2), ("text_bank", 0.1))}
    path = table(tmp_path / "scores.parquet", clipmem=[0.0] * 6, **parts)
    (tmp_path / "scores.json").write_text(json.dumps({"format": 1, "job": {"weight": 0.5}}))
    columns = Columns(open_subject(path))
    np.testing.assert_allclose(columns.values("f_alignment"), 0.9 - 0.5 * 0.3, rtol=1e-6)
    assert columns.manifest["maps"] == [
        {"label": "alignment with and without training", "x": "g_alignment", "y": "f_alignment", "diagonal": True}
    ]


@pytest.mark.parametrize(
    ("make", "part", "text"),
    [
        (lambda folder: folder / "none", "expected", "created by `clipmem run`"),
        (lambda folder: folder / "none.parquet", "got", "no such file"),
        (lambda folder: (folder / "text.parquet").write_text("x") and folder / "text.parquet", "expected", "Parquet"),
        (lambda folder: table(folder / "a.parquet", x=[1] * 6).rename(folder / "folder"), "expected", "`clipmem run`"),
    ],
)
def test_what_cannot_be_viewed(tmp_path, make, part, text):
    with pytest.raises(InputError) as error:
        _ = open_subject(make(tmp_path)).scores
    assert text in getattr(error.value, part)
    assert error.value.hint


def test_no_uid_newer_format_and_nothing_in_common(tmp_path):
    path = tmp_path / "scores.parquet"
    pl.DataFrame({"clipmem": [1.0]}).write_parquet(path)
    with pytest.raises(InputError, match="uid"):
        Columns(open_subject(path))
    table(path, clipmem=range(6))
    other = tmp_path / "other.parquet"
    pl.DataFrame({"uid": ["z"], "clipmem": [1.0]}).write_parquet(other)
    with pytest.raises(InputError) as error:
        Columns(open_subject(path, compare_with=other))
    assert error.value.expected == "pairs in common"
    with pytest.raises(InputError) as error:
        Columns(open_subject(path, data=str(write_parquet(tmp_path / "data.parquet", 3))))
    assert error.value.expected == "pairs of --data"
    (tmp_path / "scores.json").write_text('{"format": 99}')
    with pytest.raises(InputError) as error:
        open_subject(path)
    assert error.value.hint == "Update clipmem."


def test_a_link_among_the_columns_is_not_followed(tmp_path):
    path = table(tmp_path / "scores.parquet", x=[float(k) for k in range(6)])
    made = Columns(open_subject(path))
    private = tmp_path / "private"
    private.write_bytes(np.full(6, 7.0, np.float32).tobytes())
    (made.folder / "x.bin").unlink()
    (made.folder / "x.bin").symlink_to(private)
    again = Columns(open_subject(path))
    assert again.values("x").tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert not (again.folder / "x.bin").is_symlink()
    assert private.read_bytes() == np.full(6, 7.0, np.float32).tobytes()


def test_columns_are_ordered_by_use_and_compared_ones_have_the_names_of_the_runs(tmp_path):
    numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    scores = dict.fromkeys(("g_positive", "stderr", "odd", "words_score", "score", "g_alignment"), numbers)
    path = table(tmp_path / "after.parquet", **scores, f_alignment=numbers, clipmem=numbers)
    other = table(tmp_path / "be{fore.parquet", clipmem=numbers[::-1])
    columns = Columns(open_subject(path, compare_with=other))
    names = [name for name, about in columns.by_name.items() if about["type"] == "f32"]
    expected = ["clipmem", "score", "f_alignment", "g_alignment", "clipmem_change", "clipmem_other", "odd"]
    assert names == [*expected, "words_score", "stderr", "g_positive"]
    labels = {name: columns.by_name[name]["label"] for name in names}
    assert labels["f_alignment"] == "alignment, trained on it"
    assert labels["clipmem_other"] == "CLIPMem in be{fore.parquet"
    assert columns.by_name["clipmem_change"]["about"] == "CLIPMem in after.parquet minus CLIPMem in be{fore.parquet."
    same = Columns(open_subject(path, compare_with=path)).manifest["compare"]
    assert same["title"] == "after.parquet (before)"


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["clipmem", "f_alignment", "g_alignment"], ["g_alignment", "f_alignment"]),
        (["clipmem", "f_alignment", "g_alignment", "words_score", "score"], ["clipmem", "score"]),
        (["clipmem", "f_alignment", "g_alignment", "stderr", "risk"], ["clipmem", "risk"]),
        (["is_suspect", "probability", "score", "words_score", "odds_score"], ["words_score", "odds_score"]),
        (["clipmem"], ["clipmem"]),
    ],
)
def test_two_scores_start_with_two_that_are_not_computed_from_each_other(tmp_path, names, axes):
    path = table(tmp_path / "scores.parquet", **{name: [name != "is_suspect" and 0.5] * 6 for name in names})
    assert Columns(open_subject(path)).manifest["axes"] == axes


def test_detectors_that_found_nothing_are_hidden_and_ties_have_no_rank(tmp_path):
    path = table(
        tmp_path / "scores.parquet",
        words_score=[0.0, 0.0, 0.0, 2.0, 2.0, 5.0],
        score=[0.0, 0.0, 1.0, 2.0, 3.0, 4.0],
        clipmem=range(6),
    )
    columns = Columns(open_subject(path))
    ranks = [{one["name"]: one["rank"] for one in columns.details(row)["detectors"]} for row in range(6)]
    assert ranks[0] == ranks[1] == {"score": None}
    assert ranks[2:] == [
        {"score": 4},
        {"score": 3, "words_score": None},
        {"score": 2, "words_score": None},
        {"score": 1, "words_score": 1},
    ]


def test_the_columns_of_an_audit_are_explained_as_in_its_guide(tmp_path):
    path = table(tmp_path / "pairs.parquet", **dict.fromkeys(("risk", "false_alarm", "percentile"), range(6)))
    abouts = {name: about["about"] for name, about in Columns(open_subject(path)).by_name.items()}
    guide = (Path(__file__).parents[4] / "docs" / "audit.md").read_text(encoding="utf-8")
    for name, words in {
        "risk": ("models trained on the pair", "LiRA flags the pair at 1% FPR"),
        "false_alarm": ("models that did not train on the pair",),
        "percentile": ("lower LiRA score than the pair", "models that trained on the pair"),
    }.items():
        line = next(line for line in guide.splitlines() if line.startswith(f"| `{name}`"))
        for word in words:
            assert word in line
            assert word in abouts[name]


@pytest.mark.parametrize(("different", "kind"), [(20, "category"), (50, "category"), (51, "text")])
def test_values_are_to_filter_by_only_where_pairs_share_them(different, kind):
    values = [f"caption {k % different}" for k in range(100)] + [None] * 40
    assert _column(pl.Series("suggested_caption", values)).about["type"] == kind
