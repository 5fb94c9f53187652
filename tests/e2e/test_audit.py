"""`clipmem audit`: a tiny run and one model, what is refused, and what is written."""

import json
import pickle
import shutil
from itertools import product

import numpy as np
import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError, RunError, Unfinished
from clipmem.base.folder import Job
from clipmem.base.progress import Quiet
from clipmem.base.sections import DataSection, EmojiArtistsSection
from clipmem.base.tables import read_table
from clipmem.functional import auroc
from clipmem.models import embeddings, given
from clipmem.study import auditing, pool
from clipmem.study.auditing import RATES, audit, audit_model, audit_run, check_alike, model_free_features
from clipmem.study.plan import PlannedStudy
from clipmem.study.score_inputs import Settings, open_data
from tests.e2e.running import clip
from tests.tiny import tiny_recipe, write_parquet

pytestmark = pytest.mark.slow

SUBSAMPLE = ("protocol=subsample", "subsample.models=6", "subsample.fraction=0.5", "train.epochs=1")
ATTACKS = ("cosine", "augmented", "steadiness", "dropout", "gradient", "weak", "loss_gradient")
MARGIN = ("margin", "lira_margin", "rmia_margin")
POOL = ("split.shared=160", "split.candidate=40", "split.independent=40")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return clipmem.run(tiny_recipe(*SUBSAMPLE, *POOL), tmp_path_factory.mktemp("study") / "run")


@pytest.fixture(scope="module")
def audited(study):
    return clip("audit", study.path)


def drawings(*artists):
    return DataSection(source="emoji-artists", emoji_artists=EmojiArtistsSection(artists=artists))


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """One set of pairs, divided at random, as files."""
    folder = tmp_path_factory.mktemp("halves")
    table = pl.read_parquet(write_parquet(folder / "all.parquet", 240))
    order = np.random.default_rng(0).permutation(240)
    for name, rows in (("members", order[:120]), ("nonmembers", order[120:])):
        table[rows].write_parquet(folder / f"{name}.parquet")
    return [folder / "members.parquet", folder / "nonmembers.parquet"]


def test_a_run_is_audited(study, audited):
    assert audited.returncode == 0, audited.stderr
    assert max(map(len, audited.stdout.splitlines())) <= 100
    document = json.loads((study.path / "audit" / "audit.json").read_text())
    assert document["models"] == 6
    assert document["pairs"] == 240
    assert document["seen"] == [3, 3]
    assert list(document["attacks"]) == [*("cosine", "lira", "rmia"), *MARGIN, "learned"]
    for name, one in document["attacks"].items():
        for entry in (one["auc"], *one["tpr"]):
            assert 0 <= entry["low"] <= entry["mean"] <= entry["high"] <= 1
        curve = document["roc"][name]
        assert (curve[-1], len(curve)) == (1, len(document["roc"]["fpr"]))
        assert np.interp(RATES[1], document["roc"]["fpr"], curve) == pytest.approx(one["tpr"][1]["mean"])
    assert document["offline"]["references"] == [1, 2]  # of the 3 that did not train on a pair, one is the target
    assert {name: len(rows) for name, rows in document["offline"]["attacks"].items()} == dict.fromkeys(MARGIN[1:], 2)
    epsilon = document["epsilon"]
    assert (epsilon["attack"], epsilon["reason"]) == ("cosine", "")
    assert len(epsilon["correct"]) == 6
    assert max(epsilon["correct"]) <= epsilon["guesses"] == epsilon["couples"] // 10
    pairs = read_table(study.path / "audit" / "pairs.parquet", "audit/pairs")
    candidates = study.splits.filter(role="candidate")
    assert set(pairs["uid"]) == set(candidates["uid"])
    assert set((3 * pairs["risk"]).round(9)) <= {0, 1, 2, 3}
    assert (pairs["risk"] - pairs["false_alarm"]).is_sorted(descending=True)
    assert pairs["risk"].mean() == pytest.approx(document["risk"]["mean"])
    page = (study.path / "report" / "index.html").read_text()
    assert 'id="audit"' in page


def test_cosine_is_the_similarity_of_the_stored_embeddings(study, audited):
    document = json.loads((study.path / "audit" / "audit.json").read_text())
    areas = []
    for seed in range(6):
        folder = study.path / "embeddings" / "r" / f"seed-{seed}"
        image, text = (np.load(folder / f"{name}.npy").astype(float) for name in ("image", "text"))
        image = image[:, 0]
        cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
        seen = set(study.seed_scores.filter((pl.col("seed") == seed) & pl.col("f").is_not_null())["uid"])
        pool = (study.splits["role"] == "candidate").to_numpy()
        areas.append(auroc(cosine[pool], study.splits["uid"].is_in(list(seen)).to_numpy()[pool]).mean)
    assert document["attacks"]["cosine"]["auc"]["mean"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_pairs_that_no_model_trained_on_have_no_members(tmp_path):
    run = clipmem.run(tiny_recipe(*SUBSAMPLE, *POOL, "split.external=320"), tmp_path / "run")
    study = PlannedStudy(run.path)
    document, _ = audit(study, np.flatnonzero(study.role == "external"), Quiet())
    for name, one in document["attacks"].items():
        # of 120 members and others, some with near-duplicates; intervals are over six models, which share their pairs
        assert one["auc"]["mean"] == pytest.approx(0.5, abs=0.06), name
    assert document["epsilon"]["bound"] == 0


def test_without_weights_only_similarities_are_attacked(study, tmp_path):
    folder = changed(study, tmp_path, lambda _: None)
    document = audit_run(folder)
    assert list(document["attacks"]) == ["cosine", "lira", "rmia", "learned"]
    assert list(document["offline"]["attacks"]) == ["lira", "rmia"]


def test_the_same_bytes_twice(study, audited):
    before = {file.name: file.read_bytes() for file in (study.path / "audit").iterdir()}
    audit_run(study.path)
    assert {file.name: file.read_bytes() for file in (study.path / "audit").iterdir()} == before


def test_one_model_with_alike_sets(finished, halves, tmp_path):
    model, out = finished.path / "models" / "f" / "seed-0", tmp_path / "audit.json"
    done = clip("audit", "--model", model, "--members", halves[0], "--nonmembers", halves[1], "--out", out)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    document = json.loads(out.read_text())
    assert (document["members"], document["nonmembers"], document["left_out"]) == (120, 120, 0)
    assert list(document["attacks"]) == list(ATTACKS)
    for one in document["attacks"].values():  # the model saw neither set
        assert one["auc"]["low"] < 0.5 < one["auc"]["high"]
        assert all(entry["low"] <= entry["mean"] <= entry["high"] for entry in one["tpr"])
    assert document["model_free"]["low"] < 0.52
    assert 0.05 < document["set_p_value"] <= 1


def test_the_same_bytes_in_shares_and_after_a_stop(finished, halves, tmp_path, monkeypatch):
    monkeypatch.setattr(auditing, "_PART", 50)  # three parts a set
    sets = dict(zip(("members", "nonmembers"), halves, strict=True))
    model, out, alone = str(finished.path / "models" / "f" / "seed-0"), tmp_path / "audit.json", tmp_path / "alone.json"
    whole = clipmem.audit(model=model, **sets, out=alone)
    parts = out.with_suffix(".parts")
    with pytest.raises(Unfinished) as caught:
        clipmem.audit(model=model, **sets, out=out, part="2/2")
    assert (caught.value.share, caught.value.remaining, caught.value.total) == ("2/2", 3, 6)
    done = {file.name for file in parts.glob("*.parquet")}
    assert done == {f"part-{k:06d}.parquet" for k in (1, 3, 5)}
    other = {**sets, "members": halves[1], "nonmembers": halves[0]}
    with pytest.raises(InputError, match="was started with other settings"):
        clipmem.audit(model=model, **other, out=out)
    table = pl.read_parquet(parts / "part-000001.parquet")
    assert table.columns == [*ATTACKS[:5], "image", "text", "scale"]
    assert list(whole["attacks"]) == list(ATTACKS)
    assert table.height == 50
    (parts / "markers" / "part-000003.json").unlink()  # stopped between a part and its marker
    assert clipmem.audit(model=model, **sets, out=out) == whole
    assert out.read_bytes() == alone.read_bytes()
    assert not parts.exists()
    monkeypatch.setattr(pool, "cores", lambda: 2)
    monkeypatch.setattr(pool, "_FEW", 2)
    clipmem.audit(model=model, **sets, out=out)  # by two processes
    assert out.read_bytes() == alone.read_bytes()


def test_one_call_at_a_time_finishes(finished, halves, tmp_path):
    model, out = str(finished.path / "models" / "f" / "seed-0"), tmp_path / "audit.json"
    with Job(out.with_suffix(".parts")).locked(), pytest.raises(RunError, match="another clipmem process"):
        clipmem.audit(model=model, members=halves[0], nonmembers=halves[1], out=out)
    assert not out.exists()


LOADS, LOAD = [], given.load


def counted(files):
    LOADS.append(files)
    return LOAD(files)


def test_a_process_loads_the_model_once_for_all_its_parts(finished, halves, tmp_path, monkeypatch):
    """A part comes to a worker with a model that is not loaded, as here, where each is pickled."""
    turn = pool.in_turn

    def as_in_workers(function, parts, progress):
        return turn(function, {k: pickle.loads(pickle.dumps(part)) for k, part in parts.items()}, progress)

    monkeypatch.setattr(given, "load", counted)
    monkeypatch.setattr(pool, "in_turn", as_in_workers)
    monkeypatch.setattr(pool, "cores", lambda: 1)
    monkeypatch.setattr(auditing, "_PART", 50)
    sets = dict(zip(("members", "nonmembers"), halves, strict=True))
    clipmem.audit(model=str(finished.path / "models" / "f" / "seed-0"), **sets, out=tmp_path / "audit.json")
    assert len(LOADS) == 1
    assert not embeddings._LOADED  # it is not kept after the last part


def test_parts_without_a_usable_pair_leave_the_others_as_they_are(finished, halves, tmp_path, monkeypatch):
    monkeypatch.setattr(auditing, "_PART", 5)
    model, members = str(finished.path / "models" / "f" / "seed-0"), pl.read_parquet(halves[0])
    images = members["image"].to_list()
    for image in images[:12]:
        image["bytes"] = image["bytes"][:-60]  # a PNG that ends early: listed, but not decoded
    members.with_columns(image=pl.Series(images, dtype=members.schema["image"])).write_parquet(tmp_path / "a.parquet")
    members[12:].write_parquet(tmp_path / "b.parquet")
    found = [
        clipmem.audit(model=model, members=tmp_path / file, nonmembers=halves[1], out=tmp_path / "audit.json")
        for file in ("a.parquet", "b.parquet")
    ]
    assert [document.pop("left_out") for document in found] == [12, 0]
    assert found[0] == found[1]


def test_sets_of_two_artists_are_refused(finished, tmp_path):
    model, out = str(finished.path / "models" / "f" / "seed-0"), tmp_path / "audit.json"
    artists = open_data(drawings()).pairs()["key"].str.split("_").list.last().unique().sort().to_list()
    with pytest.raises(InputError) as caught:
        audit_model(model, drawings(artists[0]), drawings(artists[1]), out, Settings.of())
    assert caught.value.what == "--members and --nonmembers"
    assert "AUC" in caught.value.got
    assert caught.value.hint
    assert not out.exists()


def test_audits_are_compared(study, audited, tmp_path):
    """Against a copy with a weaker attack: rows of both with the difference; other pairs are refused."""
    assert audited.returncode == 0
    other = tmp_path / "mitigated"
    shutil.copytree(study.path, other)
    file = other / "audit" / "audit.json"
    document = json.loads(file.read_text())
    before = dict(document["attacks"]["lira"]["auc"])
    document["attacks"]["lira"]["auc"] = {key: before[key] - 0.1 for key in ("mean", "low", "high")}
    file.write_text(json.dumps(document))
    done = clip("compare", study.path, other, "--out", tmp_path / "compared")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    rows = json.loads((tmp_path / "compared" / "compare.json").read_text())["audits"]
    found = {row["measure"]: row for row in rows}
    assert {"auc cosine", "tpr cosine", "auc lira", "tpr lira", "auc rmia", "auc learned"} <= set(found)
    assert found["auc lira"]["difference"] == pytest.approx(-0.1)
    assert found["auc lira"]["low"] < -0.1 < found["auc lira"]["high"]
    assert found["tpr lira"]["difference"] == 0
    table = other / "audit" / "pairs.parquet"
    pl.read_parquet(table)[1:].write_parquet(table)
    refused_one = clip("compare", study.path, other, "--out", tmp_path / "again")
    assert refused_one.returncode == 2
    assert "1 other pairs" in refused_one.stderr


def test_shadow_models_are_audited(tmp_path):
    """f, which trained on every pair, is no target."""
    halves = ("protocol=halves", "halves.pairs=3", "halves.estimator=raw", "train.epochs=1")
    run = clipmem.run(tiny_recipe(*halves, *POOL), tmp_path / "run")
    document = audit_run(run.path)
    assert (document["models"], document["pairs"], document["seen"]) == (6, 240, [3, 3])
    assert document["epsilon"]["attack"] == "lira"


def test_a_period_tells_two_sources_apart():
    words = (
        ("red", "green", "blue", "gray"),
        ("cat", "dog", "car", "cup", "hat"),
        ("street", "roof", "chair", "field"),
    )
    captions = [[" ".join(one)] for one in product(*words)]
    member = np.random.default_rng(0).random(len(captions)) < 0.5
    marked = [[own[0] + ("" if seen else ".")] for own, seen in zip(captions, member, strict=True)]
    pixels = np.zeros((len(captions), 16, 16, 3), dtype=np.uint8)
    assert check_alike(model_free_features(pixels, captions), member).low < 0.52
    with pytest.raises(InputError) as caught:
        check_alike(model_free_features(pixels, marked), member)
    assert caught.value.what == "--members and --nonmembers"


def refused(*arguments):
    done = clip("audit", *arguments)
    assert done.returncode == 2, done.stdout
    return done.stderr


def test_bad_sets_are_refused(finished, halves, tmp_path):
    model, [members, others] = finished.path / "models" / "f" / "seed-0", halves
    both = ("--model", model, "--members", members, "--nonmembers")
    assert "120 pairs in both" in refused(*both, members)
    pl.concat([pl.read_parquet(others), pl.read_parquet(members)[:3]]).write_parquet(tmp_path / "some.parquet")
    assert "3 pairs in both" in refused(*both, tmp_path / "some.parquet")
    pl.read_parquet(others)[:0].write_parquet(tmp_path / "none.parquet")
    assert "without a usable pair" in refused(*both, tmp_path / "none.parquet").replace("\n", " ")
    pl.read_parquet(others)[:99].write_parquet(tmp_path / "few.parquet")
    assert "got 99 usable pairs, expected 100" in refused(*both, tmp_path / "few.parquet")
    same = []
    for name, file in (("a", members), ("b", others)):
        same.append(tmp_path / f"{name}.parquet")
        pl.read_parquet(file).with_columns(captions=pl.lit(["one caption"])).write_parquet(same[-1])
    assert "the same captions for all 240" in refused("--model", model, "--members", same[0], "--nonmembers", same[1])
    assert "no-such" in refused(*both, tmp_path / "no-such.parquet")


def test_bad_command_lines_are_refused(finished, halves):
    assert "clipmem audit" in refused()
    model = finished.path / "models" / "f" / "seed-0"
    assert "a run folder, and a --model" in refused(finished.path, "--model", model)
    assert "--nonmembers" in refused("--model", model, "--members", halves[0])
    assert "--members" in refused(finished.path, "--members", halves[0])
    assert "protocol 'four-way'" in refused(finished.path)
    for option, value in {"--part": "1/2", "--engine": "ray"}.items():
        assert f"{option}: got no pairs to embed" in refused(finished.path, option, value)


def changed(study, folder, change):
    copy = shutil.copytree(study.path, folder / "run", ignore=shutil.ignore_patterns("cache", "models"))
    change(copy)
    return copy


def test_runs_that_cannot_be_audited_are_refused(study, tmp_path):
    def captions(folder):
        pairs = pl.read_parquet(folder / "pairs.parquet").with_columns(captions=pl.lit(["one caption"]))
        pairs.write_parquet(folder / "pairs.parquet")

    assert "the same captions for all 240" in refused(changed(study, tmp_path / "same", captions))
    small = clipmem.run(tiny_recipe(*SUBSAMPLE), tmp_path / "small")
    assert "got 100 pairs, expected 200 pairs or more" in refused(small.path)
    few = clipmem.run(tiny_recipe(*SUBSAMPLE, *POOL, "subsample.models=4"), tmp_path / "few")
    assert "got 2 models on one side of a pair, expected 3 or more" in refused(few.path)
    assert not (few.path / "audit").exists()
    unfinished = changed(study, tmp_path / "unfinished", lambda folder: (folder / "summary.json").unlink())
    assert "summary.json" in refused(unfinished)
