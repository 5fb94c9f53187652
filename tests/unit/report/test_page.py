"""The page: complete, the same each time, self-contained, safe."""

import copy
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from clipmem.base.errors import InputError
from clipmem.base.tables import write_table
from clipmem.report.figures import STYLES_OF_PAGE
from clipmem.report.formats import signed
from clipmem.report.gallery import gallery_uids
from clipmem.report.page import write_report
from clipmem.report.run import Run, read_run
from clipmem.report.sections import SECTIONS, Section
from clipmem.report.sections.scores import steps_of
from clipmem.report.templating import template_text, typeset, words_of
from clipmem.report.terminal import print_run
from tests.unit.report.outline import Outline, outline
from tests.unit.report.run_folder import Built

Build = Callable[..., Built]
LOADING = {
    "src",
    "href",
    "xlink:href",
    "srcset",
    "poster",
    "data",
    "action",
    "background",
    "formaction",
    "ping",
}


@pytest.fixture(scope="module")
def page(two_seeds: Built) -> Outline:
    return outline(write_report(two_seeds.folder, two_seeds.images, credits=["The Gallery <of> Things"]))


@pytest.fixture(scope="module")
def bare(one_seed: Built) -> Outline:
    return outline(write_report(one_seed.folder, {}))


def sections(page: Outline) -> list[str]:
    return [attrs["id"] for tag, attrs in page.tags if tag == "section"]


def test_it_is_written_where_it_belongs_and_nothing_else_is(build: Build) -> None:
    built = build(seeds=(0, 1))
    before = {path for path in built.folder.rglob("*") if path.is_file()}
    assert write_report(built.folder, built.images) == built.folder / "report" / "index.html"
    after = {path for path in built.folder.rglob("*") if path.is_file()}
    assert after - before == {built.folder / "report" / "index.html"}


def test_sections_come_in_order(page: Outline, bare: Outline) -> None:
    order = [
        "finding",
        "meaning",
        "roles",
        "regime",
        "gallery",
        "planted",
        "retrieval",
        "training",
        "run",
        "reproduce",
        "credits",
    ]
    assert sections(page) == order
    assert sections(bare) == order


def test_every_link_has_its_target_and_ids_are_unique(page: Outline) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs[name][1:] for _, attrs in page.tags for name in ("href",) if attrs.get(name, "").startswith("#")}
    assert targets <= set(ids)
    clips = set(re.findall(r"url\(#([^)]*)\)", " ".join(v for _, attrs in page.tags for v in attrs.values())))
    assert clips <= set(ids)
    assert clips


def test_nothing_is_loaded_and_nothing_runs(two_seeds: Built, page: Outline) -> None:
    assert not {tag for tag, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "foreignobject",
    }
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in LOADING & set(attrs):
            assert attrs[name].startswith(("data:image/", "#")), (tag, name, attrs[name][:40])
    text = (two_seeds.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", text)
    assert not re.findall(r"https?://", text)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


@pytest.mark.slow
def test_same_files_give_the_same_bytes_in_another_process_too(build: Build, tmp_path: Path) -> None:
    built = build(seeds=(0, 1))
    first = write_report(built.folder, built.images).read_bytes()
    assert write_report(built.folder, dict(reversed(built.images.items()))).read_bytes() == first
    copy = tmp_path / built.folder.name
    shutil.copytree(built.folder, copy)
    images = tmp_path / "images"
    images.mkdir()
    for uid, data in built.images.items():
        (images / uid).write_bytes(data)
    program = (
        "import sys, pathlib, matplotlib; matplotlib.rcParams['lines.linewidth'] = 9\n"
        "from clipmem.report.page import write_report\n"
        "write_report(pathlib.Path(sys.argv[1]), {p.name: p.read_bytes() for p in "
        "pathlib.Path(sys.argv[2]).iterdir()})\nassert matplotlib.rcParams['lines.linewidth'] == 9\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(copy), str(images)], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert (copy / "report" / "index.html").read_bytes() == first


def test_the_numbers_of_the_summary_are_there_with_their_intervals(two_seeds: Built, page: Outline) -> None:
    words, planted = page.words(), two_seeds.summary["planted"]
    for entry in two_seeds.summary["roles"].values():
        assert f"{entry['mean']:+.3f} [{entry['low']:+.3f}, {entry['high']:+.3f}]" in words
        assert f"{entry['sd']:.3f}" in words
    for test in two_seeds.summary["tests"]:
        assert f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]" in words
    assert "11.52 (61.4)< 0.00011712.00.06392.410.953" in words  # the p are those adjusted for the number of tests
    for entry in (planted, planted["reference_alignment_auroc"]):
        assert f"{entry['auroc']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" in words
    assert "23.4 [20.0, 30.0]" in words or "23.5 [20.0, 30.0]" in words


def test_what_is_not_there_is_left_out(bare: Outline) -> None:
    assert not [1 for _, attrs in bare.tags if attrs.get("class") == "badge"]
    assert not [1 for tag, attrs in bare.tags if tag == "svg" and attrs["class"].startswith("figure roc")]


@pytest.mark.parametrize(
    ("mean", "low", "high", "heading"),
    [
        (0.2, 0.1, 0.3, "memorized"),
        (0.2, -0.1, 0.5, "none"),
        (0.2, 0.0, 0.5, "none"),
        (-0.2, -0.3, -0.1, "below"),
        (0.2, None, None, "none"),
    ],
)
def test_the_heading_follows_the_interval(
    build: Build, mean: float, low: float | None, high: float | None, heading: str
) -> None:
    built = build(seeds=(0, 1), planted=0)
    summary = copy.deepcopy(dict(built.summary))
    summary["half_difference"] |= {"mean": mean, "low": low, "high": high}
    (built.folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    text = write_report(built.folder, {}).read_text(encoding="utf-8")
    [found] = re.findall("<h1>(.*?)</h1>", text)
    size = f"{mean:+.3f}" + (f" [{signed(low)}, {signed(high)}]" if low is not None else ", no interval")
    verdict = words_of("four-way").get(heading, "No memorization shown on average")
    assert " ".join(found.split()).replace("\N{MINUS SIGN}", "-") == f"{verdict}: mean {size}"


def test_the_gallery_has_the_extremes_in_order(two_seeds: Built, page: Outline) -> None:
    rows = two_seeds.scores.filter(pl.col("role") == "candidate")
    scores = sorted(rows["clipmem"].to_list(), reverse=True)
    shown = re.findall(r"rank (\d+) ([+-]\d\.\d{3})", page.words())
    expected = [(i + 1, scores[i]) for i in range(24)] + [(60 - i, scores[-1 - i]) for i in range(24)]
    assert [(int(rank), float(score)) for rank, score in shown] == [(rank, round(score, 3)) for rank, score in expected]
    by_score = dict(zip(rows["clipmem"].to_list(), rows["uid"].to_list(), strict=True))
    assert gallery_uids(Run(two_seeds.folder)) == [by_score[score] for _, score in expected]


def test_a_planted_pair_shows_the_captions_it_was_trained_with_and_its_own(two_seeds: Built) -> None:
    text = (two_seeds.folder / "report" / "index.html").read_text(encoding="utf-8")
    captions = dict(two_seeds.pairs.select("uid", "captions").iter_rows())
    cards = dict(zip(gallery_uids(Run(two_seeds.folder)), text.split('<li class="card')[1:], strict=True))
    seen = 0
    for uid, planted, source in two_seeds.splits.select("uid", "planted", "captions_from").iter_rows():
        card = cards.get(uid)
        if card is None:
            continue
        trained, _, own = card.partition("Its own caption")
        assert f"<bdi>{captions[source][0]}</bdi>" in trained
        assert f"<bdi>{captions[source][2]}</bdi>" in trained
        assert "and 1 more" in trained
        assert (f"<bdi>{captions[uid][0]}</bdi>" in own) == planted
        assert ('class="badge"' in card) == planted
        seen += planted
    assert seen >= 4


def test_only_the_captions_that_training_used_are_called_so(build: Build) -> None:
    built = build(seeds=(0, 1))
    recipe = (built.folder / "recipe.toml").read_text(encoding="utf-8")
    (built.folder / "recipe.toml").write_text(recipe.replace("captions = 4", "captions = 1"), encoding="utf-8")
    text = write_report(built.folder, built.images).read_text(encoding="utf-8")
    own, source = (
        dict(table.iter_rows())
        for table in (built.pairs.select("uid", "captions"), built.splits.select("uid", "captions_from"))
    )
    for uid, card in zip(gallery_uids(Run(built.folder)), text.split('<li class="card')[1:], strict=True):
        trained = re.findall("<bdi>(.*?)</bdi>", card.partition("Its own caption")[0])
        assert trained == own[source[uid]][:1]
        assert 'class="more"' not in card.partition("Its own caption")[0]


def test_images_are_embedded_with_the_type_of_their_bytes(build: Build) -> None:
    built = build(seeds=(0,), planted=0)
    kinds = [
        b"\xff\xd8\xff\xe0rest",
        b"RIFF\x00\x00\x00\x00WEBPrest",
        b"\x89PNG\r\n\x1a\nrest",
        b"<svg onload=x>",
        b"",
    ]
    uids = gallery_uids(Run(built.folder))
    page = outline(write_report(built.folder, dict(zip(uids, kinds, strict=False))))
    images = [attrs["src"][:16] for tag, attrs in page.tags if tag == "img"]
    assert images == ["data:image/jpeg;", "data:image/webp;", "data:image/png;b"]
    assert page.words().count("no image") == 45


def test_every_image_and_figure_has_a_text_and_every_heading_cell_a_scope(page: Outline) -> None:
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    figures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(figures) == 6
    assert all(attrs["role"] == "img" for attrs in figures)
    assert [tag for tag, _ in page.tags].count("title") == 1 + 6
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_figures_take_their_colors_from_the_page(two_seeds: Built) -> None:
    text = (two_seeds.folder / "report" / "index.html").read_text(encoding="utf-8")
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert "#0102" not in svg
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", svg)
        assert "var(--ink)" in svg
        assert "<metadata" not in svg
        assert "<style" not in svg
        assert "DejaVu" not in svg


def test_print_and_schemes_are_styled() -> None:
    css = template_text("page.css")
    printed = css[css.index("@media print") :]
    assert "break-inside: avoid" in printed
    assert "break-before: page" in printed
    # dark colors are for screens only: paper stays white
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\)", css)
    assert css.count("prefers-color-scheme") == 1
    assert css.count("{") == css.count("}")


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_contrasts_with_its_ground(scheme: int) -> None:
    """WCAG 2.2, 1.4.3: (L1 + 0.05) / (L2 + 0.05) >= 4.5."""
    texts = map(template_text, STYLES_OF_PAGE)
    blocks = [re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)[scheme] for text in texts]
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", "".join(blocks)))
    for ground in ("paper", "wash"):
        for ink in ("ink", "soft", "candidate", "independent", "shared", "external"):
            dark, light = sorted((_luminance(colors[ground]), _luminance(colors[ink])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


HOSTILE = "</bdi><script>alert(1)</script><img src=x onerror=y> \x1b[31m\x00\u202e {{ 7*7 }} \ufeff"


def test_hostile_text_in_every_file_stays_text(build: Build) -> None:
    built = build(seeds=(0, 1), captions=[[HOSTILE, "W" * 5000]] * 124)
    pairs = built.pairs.with_columns(
        pl.lit(HOSTILE).alias(name) for name in ("key", "label", "sublabel", "credit", "image")
    )
    write_table(built.folder / "pairs.parquet", "pairs", pairs)
    manifest = json.loads((built.folder / "manifest.json").read_text(encoding="utf-8"))
    manifest |= dict.fromkeys(("command", "platform", "python", "created", "device", "precision", "clipmem"), HOSTILE)
    manifest["packages"] = {HOSTILE: HOSTILE}
    (built.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (built.folder / "recipe.toml").write_text(
        "# </pre><script>alert(1)</script> \u202e\n[model]\nname = '<b>'\n[train]\ncaptions = 4\n", encoding="utf-8"
    )
    clean = {tag for tag, _ in outline(write_report(build(seeds=(0, 1)).folder, {})).tags}
    path = write_report(built.folder, built.images, credits=[HOSTILE])
    page = outline(path)
    assert {tag for tag, _ in page.tags} <= clean | {"img"}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    text = path.read_text(encoding="utf-8")
    assert "alert(1)" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", text)
    assert "\N{SYMBOL FOR ESCAPE}[31m\N{SYMBOL FOR NULL}\\u202e {{ 7*7 }} \\ufeff" in page.words()
    assert "… (5,000 characters)" in text


@pytest.mark.parametrize("n", [1, 2, 3, 47])
def test_few_candidates_are_shown_once_each(build: Build, n: int) -> None:
    built = build(seeds=(0, 1), planted=0, sizes={"shared": 3, "candidate": max(n, 2), "independent": 3, "external": 3})
    scores = built.scores.with_columns(
        clipmem=pl.when((pl.col("role") == "candidate") & (pl.int_range(pl.len()) >= 3 + n))
        .then(np.nan)
        .otherwise("clipmem")
    )
    write_table(built.folder / "scores.parquet", "scores", scores)
    uids = gallery_uids(Run(built.folder))
    assert len(uids) == len(set(uids)) == n
    page = outline(write_report(built.folder, built.images))
    assert ("No further candidates." in page.words()) == (n == 1)


def test_equal_scores_are_drawn_and_ordered_by_uid(build: Build) -> None:
    built = build(seeds=(0, 1))
    write_table(
        built.folder / "scores.parquet",
        "scores",
        built.scores.with_columns(clipmem=pl.lit(0.0), low=0.0, high=0.0),
    )
    uids = gallery_uids(Run(built.folder))
    assert uids[:24] == sorted(uids)[:24]
    outline(write_report(built.folder, built.images))


class CaptionLength(Section):
    """Mean length of the captions."""

    nav, screen = "Caption length", "report"
    template = """{% from "parts.html" import section %}
{% call section(section_id, "Captions have " ~ words_a_caption | plain(1) ~ " words") %}{{ first }}{% endcall %}"""
    terminal = "# Captions\n{{ words_a_caption | plain(1) }} words: {{ first }}\n"

    def data(self, subject: Run) -> dict[str, object]:
        captions = [caption for own in subject.own_captions.values() for caption in own]
        words = sum(len(caption.split()) for caption in captions)
        return {"words_a_caption": words / len(captions), "first": "<b> \x1b"}


def test_a_section_of_another_package_is_one_class(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECTIONS._items, "caption-length", CaptionLength)
    monkeypatch.setattr(CaptionLength, "name", "caption-length")
    built = build(seeds=(0, 1))
    page = outline(write_report(built.folder, {}))
    order = sections(page)
    assert order.index("training") < order.index("caption-length") < order.index("reproduce")
    assert "#caption-length" in {attrs.get("href") for _, attrs in page.tags}
    assert "Captions have 3.2 words <b> ␛" in page.words()
    stream = io.StringIO()
    print_run("report", built.folder, Console(file=stream, width=100))
    assert "3.2 words: <b> ␛" in stream.getvalue()
    assert SECTIONS.summary("caption-length") == "Mean length of the captions."


@pytest.mark.parametrize(
    ("seeds", "changes", "steps"),
    [
        ((0, 1), {}, ["view", "curate", "compare"]),
        ((0,), {}, ["view", "run", "curate"]),
        ((0, 1), {"protocol": "given"}, ["view"]),
        ((0, 1), {"protocol": "halves"}, ["view", "curate"]),  # two pairs of models, of which an audit needs three
        ((0, 1), {"protocol": "subsample"}, ["view", "audit", "curate"]),
        ((0, 1), {"half_difference": {"mean": 0.0, "low": -0.1, "high": 0.1}}, ["view", "run", "curate"]),
    ],
)
def test_what_to_do_next_follows_the_result(
    build: Build, seeds: tuple[int, ...], changes: dict[str, object], steps: list[str]
) -> None:
    built = build(seeds=seeds)
    summary = copy.deepcopy(dict(built.summary))
    for name, value in changes.items():
        summary[name] = summary[name] | value if isinstance(value, dict) else value
    (built.folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if not changes:  # of shipped data
        assert steps_of(read_run(built.folder), "x")[-1]["command"].startswith("clipmem init")
    recipe = (built.folder / "recipe.toml").read_text(encoding="utf-8")
    recipe = recipe.replace('source = "emoji"', 'source = "coco"\npath = "captions.json"')
    (built.folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    rows = steps_of(read_run(built.folder), "my run")
    assert [row["command"].split()[1] for row in rows] == steps
    assert all("'my run'" in row["command"] for row in rows)
    if "protocol" not in changes:  # whose runs have other roles
        text = write_report(built.folder, {}).read_text(encoding="utf-8")
        assert [text.index(f"<code>clipmem {step} ") for step in steps]


def test_the_finding_is_first_and_details_are_folded(two_seeds: Built) -> None:
    text = (two_seeds.folder / "report" / "index.html").read_text(encoding="utf-8")
    first = text[: text.index('<section id="meaning"')]
    assert first.count('<li class="card') == 5
    assert "What to do next" in first
    folded = " ".join(re.findall(r"<details>(.*?)</details>", text, flags=re.DOTALL))
    for detail in ("Hedges g", "recipe, SHA-256", "The Gallery &lt;of&gt; Things"):
        assert text.count(detail) == folded.count(detail) > 0
    assert "::details-content" in template_text("page.css").partition("@media print")[2]


def test_a_folder_without_training_logs_has_no_curves(build: Build) -> None:
    built = build(seeds=(0, 1))
    shutil.rmtree(built.folder / "models")
    figures = [attrs["class"] for tag, attrs in outline(write_report(built.folder, {})).tags if tag == "svg"]
    assert len(figures) == 4


def _broken(build: Build, name: str, text: str | None) -> Path:
    folder = build(seeds=(0,), planted=0).folder
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("summary.json", None, "no summary.json in it"),
        ("manifest.json", None, "no manifest.json in it"),
        ("recipe.toml", None, "no recipe.toml in it"),
        (
            "summary.json",
            "{",
            "text that is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        ),
        ("summary.json", "[1]", "[1]"),
        ("summary.json", '{"format": 3}', "format 3, made by clipmem 0.1.0"),
        ("summary.json", '{"format": 1}', "format 1, made by clipmem 0.1.0"),
        ("summary.json", '{"format": 2, "protocol": "four-way", "roles": {}}', "no seeds"),
        ("summary.json", '{"format": 2, "protocol": "four-way", "seeds": [0], "roles": {}}', "roles []"),
        (
            "models/f/seed-0/log.jsonl",
            '{"step": 0, "epoch": 0, "loss": 1.0}\n{"step": 1, "epo',
            '\'{"step": 1, "epo\'',
        ),
        ("models/f/seed-0/log.jsonl", '{"step": 0, "epoch": 0}', '\'{"step": 0'),
    ],
)
def test_a_folder_that_is_not_finished_is_refused(build: Build, name: str, text: str | None, got: str) -> None:
    folder = _broken(build, name, text)
    with pytest.raises(InputError) as caught:
        write_report(folder, {})
    assert caught.value.got.startswith(got)
    assert str(folder) in caught.value.what
    assert not (folder / "report").exists()


def test_tables_that_do_not_belong_together_are_refused(build: Build) -> None:
    built = build(seeds=(0,), planted=0)
    splits = built.splits.with_columns(captions_from=pl.lit("nobody"))
    write_table(built.folder / "splits.parquet", "splits", splits)
    with pytest.raises(InputError) as caught:
        write_report(built.folder, {})
    assert (caught.value.what, caught.value.got) == ("splits.parquet column captions_from", "'nobody'")


def test_typeset_leaves_words_alone() -> None:
    assert typeset("four-way, 2-3 of f-1, key-1") == "four-way, 2-3 of f-1, key-1"
    assert typeset("(-1.5)") == "(\N{MINUS SIGN}1.5)"
