"""A package outside the tree, with one of every kind, is used like our own."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.recipes import differences, dump_recipe, flatten, load_recipe
from clipmem.base.sections import DataSection
from clipmem.cli import main
from clipmem.data.sources import SOURCES
from clipmem.measure.base import MEASURES
from clipmem.mitigate import MITIGATIONS
from clipmem.models import given
from clipmem.models.family import FAMILIES
from clipmem.report.sections import SECTIONS
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.scoring.pair_scores import PAIR_SCORES
from clipmem.scoring.protocols import PROTOCOLS
from clipmem.study import pool
from clipmem.train.objectives import OBJECTIVES
from tests.tiny import encoded_image

PLUG = Path(__file__).parent / "plug"
PROJECT = tomllib.loads((PLUG / "pyproject.toml").read_text())["project"]
POINTS = PROJECT["entry-points"]
REGISTRIES = (PROTOCOLS, ALIGNMENTS, OBJECTIVES, MITIGATIONS, MEASURES, SOURCES, SECTIONS, PAIR_SCORES, FAMILIES)
SUMMARIES = (
    "Three models a seed, each without one third of the pairs",
    "plain similarity of image and captions, without a bank",
    "Each image must find its caption among the batch's.",
    "Drop the pairs with the longest captions.",
    "Lines of JSON with a `pic` and what it `says`.",
    "How many characters captions have, and the mean score of each length.",
    "Captions with misspelled words, by codespell's dictionary.",
    "How long the embeddings of captions are.",
    "Linear maps of pixels and letters.",
)
STUDY = (
    *("split.shared=60", "split.candidate=20", "split.independent=20", "split.external=20", "score.draws=200"),
    *("model.name=clipmem-micro", "train.epochs=1", "train.seeds=[0]", "train.batch_size=32"),
    *("score.alignment=plain", "score.plain.scale=2.0", "thirds.draw=3"),
    *("train.objective=one-way", "train.one_way.smoothing=0.1"),
)


def install(site):
    """Put the package and what pip would say of it into a folder of packages."""
    shutil.copytree(PLUG / "clipmem_plug", site / "clipmem_plug", ignore=shutil.ignore_patterns("__pycache__"))
    information = site / "clipmem_plug-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in own.items()) for group, own in POINTS.items()]
    (information / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """The package, installed for this process and those that it starts."""
    site = tmp_path / "site"
    site.mkdir()
    install(site)
    monkeypatch.syspath_prepend(str(site))
    yield
    forget()


def forget():
    """Undo what this process loaded of the package, for the next test, which installs it elsewhere."""
    for registry in REGISTRIES:
        for own in POINTS.values():
            for name in own:
                registry._items.pop(name, None)
    for name in [name for name in sys.modules if name.startswith("clipmem_plug")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def telegrams(tmp_path_factory):
    folder = tmp_path_factory.mktemp("telegrams")
    lines = []
    for k in range(130):
        (folder / f"{k}.png").write_bytes(encoded_image(k))
        lines.append(
            json.dumps({"pic": f"{k}.png", "says": f"{'nubmer' if k == 66 else 'number'} {k}{' again' * (k % 3)} STOP"})
        )
    path = folder / "all.telegrams"
    path.write_text("\n".join(lines) + "\n")
    return path


def drive(call, telegrams, place):
    """Use all in every command that asks for them; `call` runs a command line and returns its output."""
    recipe, plain, less = place / "recipe.toml", place / "plain", place / "less"
    settings = [part for setting in STUDY for part in ("--set", setting)]
    call("init", recipe, "--data", telegrams, "--protocol", "thirds", *settings)
    text = recipe.read_text()
    assert 'protocol = "thirds"' in text
    assert re.search(r"\[thirds\]\ndraw = 3 +# Seed of the draw of the thirds\.", text)
    assert re.search(r"\[data\.telegrams\]\nstop = true +# ", text)
    assert re.search(r"\[train\.one_way\]\nsmoothing = 0\.1 +# ", text)
    assert re.search(r"\[score\.plain\]\nscale = 2\.0 +# ", text)
    told = call("run", recipe, "--out", plain)
    assert "Caption lengths: " in told
    call("run", recipe, "--out", less, "--set", "mitigate.drop_longest.count=9")
    page = (less / "report" / "index.html").read_text()
    assert "Long captions and short ones" in page
    assert 'href="#caption-length"' in page
    assert "Plain memorization" in page
    assert "length of captions" in page
    runs = [clipmem.load_run(folder) for folder in (plain, less)]
    assert [run.summary.protocol for run in runs] == ["thirds"] * 2
    records = [json.loads((run.path / "models/third-0/seed-0/record.json").read_text()) for run in runs]
    assert [record["objective"] for record in records] == ["one-way"] * 2
    heights = [run.scores.filter(role="candidate").height for run in runs]
    assert heights == [100, 91]
    captions = dict(runs[0].pairs.select("uid", "captions").iter_rows())
    gone = set(runs[0].splits["uid"]) - set(runs[1].splits["uid"])
    assert all("again again" in captions[uid][0] for uid in gone)
    assert not any("STOP" in own[0] for own in captions.values())
    norms = [metrics["caption_norm_loss"] for metrics in runs[0].summary.utility.metrics.values()]
    assert all(norm.low < norm.mean < norm.high for norm in norms)
    scores = runs[0].scores
    assert (scores["f_image_bank"] == 0).all()  # no bank
    call("compare", plain, less, "--out", place / "compared")
    document = json.loads((place / "compared" / "compare.json").read_text())
    assert document["runs"][1]["differs"]["mitigate.drop_longest.count"] == [None, 9]
    assert document["differences"][0]["seeds"] == 1
    models = [plain / "models" / f"third-{k}" / "seed-0" for k in (0, 1)]
    call("score", "--target", models[0], "--reference", models[1], "--data", telegrams, "--alignment", "plain",
         "--out", place / "scores.parquet", "--bank-size", 20)  # fmt: skip
    assert json.loads((place / "scores.json").read_text())["alignment"] == "plain"
    maps = []
    for seed in (0, 1):
        draw = torch.Generator().manual_seed(seed)
        weights = {"image": torch.randn(192, 4, generator=draw), "text": torch.randn(256, 4, generator=draw)}
        save_file(weights, place / f"{seed}.safetensors")
        maps.append(f"letters:{place / f'{seed}.safetensors'}")
    call("score", "--target", maps[0], "--reference", maps[1], "--data", telegrams, "--out", place / "letters.parquet",
         "--bank-size", 20)  # fmt: skip
    about = json.loads((place / "letters.json").read_text())
    assert (about["target"], about["pairs"]) == (maps[:1], 130)
    call("curate", telegrams, "--out", place / "curated")
    suspects = pl.read_parquet(place / "curated" / "suspects.parquet")
    assert suspects["misspelled_score"].sort(descending=True).head(2).to_list() == [1, 0]
    listed = " ".join(call("doctor", "--declared").split())
    assert all(one in listed for one in SUMMARIES)


@pytest.mark.slow
@pytest.mark.usefixtures("plug", "fresh")
def test_a_package_outside_the_tree_is_used_like_our_own(telegrams, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        main([str(one) for one in arguments])
        return capsys.readouterr().out

    with pool.reused():
        drive(call, telegrams, tmp_path)


@pytest.mark.slow
def test_the_same_in_a_fresh_environment(telegrams, tmp_path):
    place = tmp_path / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip())
    # what this environment has, without a network: its packages, and those that its own .pth files name
    borrowed = sysconfig.get_path("purelib")
    (site / "borrowed.pth").write_text(f"import site; site.addsitedir({borrowed!r})\n")
    install(site)

    def call(*arguments):
        done = subprocess.run(
            [python, "-m", "clipmem", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    plugged = pytest.MonkeyPatch()  # to read the runs that were made there
    plugged.syspath_prepend(str(site))
    try:
        drive(call, telegrams, tmp_path)
        assert re.fullmatch(r"\d\.\d\d words\n", call("caption-words", telegrams))
    finally:
        plugged.undo()
        forget()


@pytest.mark.slow
@pytest.mark.usefixtures("plug", "fresh")
def test_a_misspelled_caption_comes_first(tmp_path, capsys):
    emoji = clipmem.load_pairs("emoji")
    rows = emoji.pairs().filter(pl.col("captions").list.first() != "copyright").head(120)  # a suspect by another rule
    captions = [texts[0] for texts in rows["captions"]]
    wrong = "separate".replace("par", "per")
    captions[50] += f" of a {wrong} kind"
    data = pl.DataFrame({"image": emoji.read(rows["image"].to_list()), "caption": captions})
    data.write_parquet(tmp_path / "pairs.parquet")
    main(["curate", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "curated")])
    assert captions[50][:12] in capsys.readouterr().out
    first = pl.read_parquet(tmp_path / "curated" / "suspects.parquet").row(0, named=True)
    ranking = dict(pl.read_parquet(tmp_path / "curated" / "ranking.parquet").select("uid", "caption").iter_rows())
    assert ranking[first["uid"]] == captions[50]
    assert (first["is_suspect"], first["kind"], first["misspelled_score"]) == (True, "hygiene", 1)


@pytest.mark.usefixtures("plug")
def test_its_models_and_its_command_are_found_by_name(telegrams, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "clipmem", "caption-words", telegrams], capture_output=True, text=True, check=False
    )
    assert done.stdout == "2.99 words\n"
    with pytest.raises(InputError) as error:
        given.find("letters:nothing")
    assert (error.value.got, error.value.what) == ("no such file", "model 'letters:nothing'")
    with pytest.raises(InputError) as error:
        given.find("lettres:nothing")
    assert "letters:PATH" in error.value.expected


@pytest.mark.usefixtures("plug")
def test_recipes_keep_the_tables_of_declarations():
    settings = ["protocol=thirds", "thirds.draw=5", "score.alignment=plain", "mitigate.drop_longest.count=2"]
    recipe = load_recipe("", settings)
    assert load_recipe(dump_recipe(recipe, comments=True)) == recipe
    assert flatten(recipe)["thirds.draw"] == 5
    assert differences(load_recipe("", settings[:1]), load_recipe("", settings[:2])) == [("thirds.draw", 0, 5)]
    assert list(recipe.mitigate.active()) == ["drop_longest"]
    plain = load_recipe("")
    assert type(plain).model_fields.keys() == type(load_recipe("", ["train.lr=1.0"])).model_fields.keys()
    assert "thirds" not in dump_recipe(plain)
    assert type(DataSection()).model_fields.keys() == type(plain.data).model_fields.keys()


@pytest.mark.usefixtures("plug")
@pytest.mark.parametrize(
    ("setting", "what", "part"),
    [
        ("protocol=thirsd", "--set: protocol", "Did you mean 'thirds'?"),
        ("score.alignment=plian", "--set: [score] alignment", "Did you mean 'plain'?"),
        ("thirds.drow=3", "--set: [thirds] drow", "Did you mean 'draw'?"),
        ("mitigate.drop_longest.count=-1", "--set: [mitigate.drop_longest] count", "init"),
        ("score.plain.scale=0", "--set: [score.plain] scale", "init"),
    ],
)
def test_wrong_settings_of_declarations_are_explained(setting, what, part):
    with pytest.raises(InputError) as error:
        load_recipe("", [setting], origin="--set")
    assert (error.value.what, part in error.value.hint) == (what, True)


def test_nothing_in_the_package_knows_it():
    names = [name for own in POINTS.values() for name in own]
    word = re.compile(rf"clipmem_plug|[\"'](?:{'|'.join(names)})[\"']|^\[.*(?:{'|'.join(names)}).*\]$", re.MULTILINE)
    source = Path(clipmem.__file__).parent
    texts = {file: file.read_text() for file in source.rglob("*") if file.suffix in {".py", ".toml", ".html", ".txt"}}
    assert len(texts) > 200
    assert {file.name: word.findall(text) for file, text in texts.items() if word.search(text)} == {}
