"""The engine of the explorer's page filters, sorts, searches and counts as polars and plain loops do, on random tables.

Needs node, which runs the app that ships in the package; skipped where there is none.
"""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tests.view_folder import STATIC

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no node on this machine: it runs the engine outside a browser")
Ask = Callable[..., Any]

FLOATS = st.none() | st.floats(-8, 8, width=32) | st.sampled_from([0.0, -0.0, 1.5, math.inf, -math.inf])
INTEGERS = st.none() | st.integers(-(2**31) + 1, 2**31 - 1) | st.sampled_from([0, 1])
# few letters, so that words are found; capitals, letters beyond ASCII, and the separator of a pair's captions
LETTERS = st.sampled_from("aabBcC dé漢😀\x1f-'")
TEXT = st.text(LETTERS, max_size=12)
WORD = st.text(st.sampled_from("aAbBcC漢😀é"), min_size=1, max_size=3)
QUICK = settings(max_examples=50)


@pytest.fixture(scope="module")
def ask() -> Generator[Ask]:
    """Start the engine; give a function that asks it."""
    command = [str(NODE), str(Path(__file__).with_name("view_engine.js")), str(STATIC / "app.js")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def one(task: str, **given: Any) -> Any:
            stdin.write(json.dumps({"task": task, **given}).replace("Infinity", "1e999") + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield one
        stdin.close()


def contains(words: list[tuple[bool, str]]) -> pl.Expr:
    """Whether a lower-case text has the wanted words and none of the others."""
    text = pl.col("text").str.to_lowercase()
    found = pl.lit(True)
    for excluded, word in words:
        hit = text.str.contains(word.lower(), literal=True)
        found &= ~hit if excluded else hit
    return found


def as_query(words: list[tuple[bool, str]]) -> str:
    return " ".join(("-" if excluded else "") + word for excluded, word in words)


WORDS = st.lists(st.tuples(st.booleans(), WORD), max_size=3)


@QUICK
@given(values=st.lists(FLOATS, max_size=60), descending=st.booleans())
def test_sorts_floats_as_polars(ask: Ask, values: list[float | None], descending: bool) -> None:
    table = pl.DataFrame({"value": pl.Series(values, dtype=pl.Float32)}).with_row_index()
    expected = table.sort("value", descending=descending, nulls_last=True, maintain_order=True)["index"].to_list()
    assert ask("sort", type="f32", values=values, descending=descending) == expected


@QUICK
@given(values=st.lists(INTEGERS, max_size=60), descending=st.booleans())
def test_sorts_integers_as_polars(ask: Ask, values: list[int | None], descending: bool) -> None:
    table = pl.DataFrame({"value": pl.Series(values, dtype=pl.Int32)}).with_row_index()
    expected = table.sort("value", descending=descending, nulls_last=True, maintain_order=True)["index"].to_list()
    assert ask("sort", type="i32", values=values, descending=descending) == expected


@QUICK
@given(texts=st.lists(TEXT, min_size=1, max_size=80), words=WORDS)
def test_searches_as_polars(ask: Ask, texts: list[str], words: list[tuple[bool, str]]) -> None:
    expected = pl.DataFrame({"text": texts}).select(pl.all_horizontal(contains(words), pl.col("text").is_not_null()))
    assert ask("search", texts=texts, query=as_query(words)) == expected.to_series().cast(pl.Int64).to_list()
    assert ask("texts", texts=texts) == texts


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [1, 1, 1, 1, 1]),
        ('"red car"', [1, 0, 0, 0, 0]),
        ("red car", [1, 1, 0, 0, 0]),
        ('car -"red car"', [0, 1, 0, 0, 0]),
        ("-car", [0, 0, 1, 1, 1]),
        ("übung", [0, 0, 1, 0, 0]),
        ("ÜBUNG", [0, 0, 1, 0, 0]),
        ("-", [1, 1, 1, 1, 1]),
        ("a-b", [0, 0, 0, 1, 0]),
        ("=1+1", [0, 0, 0, 0, 1]),
        ('"unclosed', [0, 0, 0, 0, 0]),
        ("\0\x1f", [1, 1, 1, 1, 1]),
    ],
)
def test_queries(ask: Ask, query: str, found: list[int]) -> None:
    assert ask("search", texts=["A Red CAR", "car, red", "Übung", "a-b", "=1+1"], query=query) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("do -w", [0, 1, 1, 0, 0, 0]),
        ("-w DO", [0, 1, 1, 0, 0, 0]),
        ("do", [1, 1, 1, 1, 1, 1]),
        ("-do -w", [1, 0, 0, 1, 1, 1]),
        ('"do it" -w', [0, 0, 1, 0, 0, 0]),
        ('-"w"', [1, 1, 0, 1, 0, 1]),  # the letter itself
        ("-w", [1, 1, 1, 1, 1, 1]),
        ("dog -w", [1, 1, 0, 0, 0, 0]),
    ],
)
def test_whole_words(ask: Ask, query: str, found: list[int]) -> None:
    texts = ["a dog", "“do”\x1fthe dog\N{RIGHT SINGLE QUOTATION MARK}s", "now-do it", "doé", "do_ w", "漢do1"]
    assert ask("search", texts=texts, query=query) == found


@QUICK
@given(texts=st.lists(TEXT, min_size=1, max_size=80), words=WORDS)
def test_whole_words_as_regular_expressions(ask: Ask, texts: list[str], words: list[tuple[bool, str]]) -> None:
    def has(text: str, word: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", text.lower()) is not None

    expected = [int(all(has(text, word) != excluded for excluded, word in words)) for text in texts]
    assert ask("search", texts=texts, query=f"-w {as_query(words)}") == expected


def test_rare_words_are_searched_in_what_is_left(ask: Ask) -> None:
    texts = [f"text {k}" for k in range(200)]
    assert np.flatnonzero(ask("search", texts=texts, query="19 text -199")).tolist() == [19, 119, *range(190, 199)]


@QUICK
@given(
    data=st.data(), rows=st.integers(0, 50), descending=st.booleans(), words=WORDS, kind=st.sampled_from(["f32", "i32"])
)
def test_filters_and_counts_as_polars(
    ask: Ask, data: st.DataObject, rows: int, descending: bool, words: list[tuple[bool, str]], kind: str
) -> None:
    def several(one: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(one, min_size=rows, max_size=rows))

    values, sort = several(FLOATS if kind == "f32" else INTEGERS), several(FLOATS)
    low, high = sorted(data.draw(st.tuples(*[st.floats(-9, 9, width=32) | st.just(math.inf) | st.just(-math.inf)] * 2)))
    codes, allowed = several(st.sampled_from([0, 1, 2, 3, 255])), data.draw(st.lists(st.integers(0, 3), max_size=4))
    texts = data.draw(st.lists(TEXT, min_size=1, max_size=9, unique=True))
    captions = several(st.integers(0, len(texts) - 1))
    answer = ask(
        "shown", type=kind, values=values, low=low, high=high, codes=codes, allowed=allowed, texts=texts,
        captions=captions, query=as_query(words), sort=sort, descending=descending,
    )  # fmt: skip
    dtype = pl.Float32 if kind == "f32" else pl.Int32
    table = pl.DataFrame({
        "value": pl.Series(values, dtype=dtype).cast(pl.Float64), "code": pl.Series(codes, dtype=pl.Int32),
        "text": pl.Series([texts[code] for code in captions], dtype=pl.String),
        "sort": pl.Series(sort, dtype=pl.Float32),
    }).with_row_index()  # fmt: skip
    inside = pl.col("value").is_between(low, high).fill_null(False)
    picked, found = pl.col("code").is_in(allowed), contains(words)
    kept = table.filter(inside, picked, found).sort("sort", descending=descending, nulls_last=True, maintain_order=True)
    assert answer["rows"] == kept["index"].to_list()
    counts = np.zeros((3, 7), int)
    for code in table.filter(inside, found)["code"]:  # the condition on codes is ignored
        counts[min(code, 2), code % 7] += 1
    assert answer["counts"] == counts.ravel().tolist()
    fails = table.select(pl.when(picked).then(0).otherwise(1 << 5) + pl.when(found).then(0).otherwise(1)).to_series()
    assert answer["after"] == fails.to_list()


@QUICK
@given(
    points=st.lists(st.tuples(FLOATS, FLOATS), max_size=30),
    corners=st.lists(st.tuples(*[st.integers(-9, 9)] * 2), min_size=3, max_size=7),
)
def test_a_lasso_has_the_points_inside(ask: Ask, points: list[tuple[Any, Any]], corners: list[tuple[int, int]]) -> None:
    def inside(x: float, y: float) -> bool:  # a ray to the right crosses the outline an odd number of times
        crossed = 0
        for (x1, y1), (x0, y0) in zip(corners, corners[-1:] + corners[:-1], strict=True):
            if (y1 > y) != (y0 > y) and x < (x0 - x1) * (y - y1) / (y0 - y1) + x1:
                crossed += 1
        return crossed % 2 == 1

    x, y = [one for one, _ in points], [one for _, one in points]
    found = ask("polygon", x=x, y=y, polygon=[float(value) for corner in corners for value in corner])
    assert found == [0 if None not in point and inside(*point) else 1 << 3 for point in points]


@QUICK
@given(
    rows=st.lists(st.tuples(st.none() | st.integers(0, 5), st.none() | st.integers(0, 5), st.booleans()), max_size=40)
)
def test_disagreement_is_of_mean_ranks(ask: Ask, rows: list[tuple[int | None, int | None, bool]]) -> None:
    a, b, hidden = [one[0] for one in rows], [one[1] for one in rows], [int(one[2]) for one in rows]
    found = ask("disagreement", a=a, b=b, hidden=hidden, limit=5)
    table = pl.DataFrame(
        {"a": a, "b": b, "hidden": hidden}, schema={"a": pl.Float32, "b": pl.Float32, "hidden": pl.Int8}
    )
    kept = table.with_row_index().filter(pl.col("hidden") == 0, pl.col("a").is_not_null(), pl.col("b").is_not_null())
    kept = kept.with_columns(change=pl.col("a").rank("average") - pl.col("b").rank("average"))
    assert found["count"] == kept.height
    change = dict(kept.select("index", "change").iter_rows())
    for name, sign in (("above", 1), ("below", -1)):
        largest = sorted((sign * value for value in change.values() if sign * value > 0), reverse=True)[:5]
        assert [sign * change[row] for row in found[name]] == pytest.approx(largest)
    if kept.height > 1 and kept["a"].n_unique() > 1 and kept["b"].n_unique() > 1:
        assert found["correlation"] == pytest.approx(spearmanr(kept["a"], kept["b"]).statistic, abs=1e-6)


@QUICK
@given(points=st.lists(st.tuples(FLOATS, FLOATS, st.booleans(), st.sampled_from([0, 1, 2, 255])), max_size=40))
def test_density_counts_points_by_cell_and_group(ask: Ask, points: list[tuple[Any, Any, bool, int]]) -> None:
    width, height, box = 4, 3, [-4.0, 4.0, -2.0, 1.0]
    x, y, hidden, groups = ([one[k] for one in points] for k in range(4))
    expected = np.zeros((4, height, width), int)
    for px, py, hides, group in points:
        if px is None or py is None or not (-4 <= px < 4 and -2 < py <= 1):
            continue
        expected[0 if hides else min(group, 2) + 1, int(1 - py), int((px + 4) / 2)] += 1
    given_points = {"x": x, "y": y, "hidden": [int(one) for one in hidden], "groups": groups}
    assert ask("density", box=box, width=width, height=height, **given_points) == expected.ravel().tolist()


def test_nearest_row(ask: Ask) -> None:
    points = {"x": [0, 1, None, 1.1], "y": [0, 1, 1, 1]}
    assert ask("nearest", **points, hidden=[0, 0, 0, 0], at=[1.08, 1, 0.5, 0.5]) == 3
    assert ask("nearest", **points, hidden=[0, 0, 0, 1], at=[1.08, 1, 0.5, 0.5]) == 1
    assert ask("nearest", **points, hidden=[0, 0, 0, 0], at=[5, 5, 0.5, 0.5]) == -1


def test_bins_are_closed_at_both_ends(ask: Ask) -> None:
    assert ask("binned", type="f32", values=[0, 1, 0.5, None, 2, -1], min=0, max=1) == [0, 47, 24, 255, 47, 0]
    assert ask("binned", type="i32", values=[3, 3, None], min=3, max=3) == [0, 0, 255]


CAPTIONS = st.lists(st.sampled_from(["a", "red", "cat", "dog", "Hammer", "nail", "été", "7"]), max_size=5).map(" ".join)


def evidence_by_loop(caption: str, nearest: list[str], every: list[str]) -> str:
    """The sentence from its definition: words of letters, those in more than a fifth of all captions left out."""

    def words(text: str) -> set[str]:
        return {word for word in re.findall(r"[^\W\d_]+", text.lower()) if len(word) > 1}

    common = {word for text in every for word in words(text)}
    common = {word for word in common if sum(word in words(text) for text in every) > max(2, len(every) / 5)}
    own = words(caption) - common
    counts = {word: sum(word in words(text) for text in nearest) for text in nearest for word in words(text)}
    counts = {word: count for word, count in counts.items() if word not in own | common}
    absent = sorted((word for word in own if all(word not in words(text) for text in nearest)), key=by_length)[:2]
    named = " or ".join(f"“{word}”" for word in absent)
    if counts and max(counts.values()) > 1:
        most = min((word for word in counts if counts[word] == max(counts.values())), key=by_length)
        more = f"; none has {named}" if named else ""
        return f"{counts[most]} of the {len(nearest)} nearest images have “{most}” in their captions{more}."
    return f"None of the {len(nearest)} nearest images has {named} in its captions." if named and nearest else ""


def by_length(word: str) -> tuple[int, str]:
    return -len(word), word


@QUICK
@given(caption=CAPTIONS, nearest=st.lists(CAPTIONS, max_size=5), every=st.lists(CAPTIONS, max_size=30))
def test_says_why_a_caption_is_suspect(ask: Ask, caption: str, nearest: list[str], every: list[str]) -> None:
    assert ask("evidence", caption=caption, nearest=nearest, all=every) == evidence_by_loop(caption, nearest, every)


def test_the_sentence_names_what_the_neighbors_show_and_what_the_caption_says(ask: Ask) -> None:
    nearest = ["a hammer", "hammer and nail", "claw hammer", "a saw"]
    expected = "3 of the 4 nearest images have “hammer” in their captions; none has “cupcake”."
    assert ask("evidence", caption="a cupcake", nearest=nearest, all=[]) == expected


BYTES = st.integers(-128, 127)


@QUICK
@given(data=st.data(), rows=st.integers(0, 9), width=st.integers(1, 9))
def test_similarities_are_scaled_products(ask: Ask, data: st.DataObject, rows: int, width: int) -> None:
    codes = data.draw(st.lists(BYTES, min_size=rows * width, max_size=rows * width))
    scales = data.draw(st.lists(st.sampled_from([0, 0.5, 2, 0.125]), min_size=rows, max_size=rows))
    query = data.draw(st.lists(st.floats(-1, 1, width=16), min_size=width, max_size=width))
    products = np.array(codes).reshape(rows, width) @ np.array(query) * scales
    expected = [value if scale else None for value, scale in zip(products.tolist(), scales, strict=True)]
    answer = ask("similarities", codes=codes, scales=scales, query=query)
    assert [value is None for value in answer] == [value is None for value in expected]
    assert [value or 0 for value in answer] == pytest.approx([value or 0 for value in expected], rel=1e-6, abs=1e-6)


@QUICK
@given(text=st.text(st.sampled_from("aAbéÜ1_ -'~<漢\N{COMBINING ACUTE ACCENT}😀"), max_size=20))
def test_words_are_those_that_an_export_stores(ask: Ask, text: str) -> None:
    stored = pl.Series([text]).str.to_lowercase().str.extract_all(r"[\p{L}\p{M}\p{N}_]+")[0]
    assert ask("tokens", text=text) == stored.to_list()
