"""Utility in a tiny study, and `clipmem evaluate` on runs, sources and models: files, numbers, errors."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection
from clipmem.cli import evaluate as command
from clipmem.cli.shell import printing
from clipmem.data.sources import class_prompts
from clipmem.measure.zero_shot import classification_metrics
from clipmem.models import embeddings, passes
from clipmem.report.terminal import print_run
from clipmem.study.execution import Execution
from clipmem.study.plan import PlannedStudy
from tests.tiny import encoded_image, tiny_recipe

GIVEN = ("given.target=['a']", "given.reference=['b']")
RETRIEVAL = ("recall@1", "recall@5", "recall@10", "mAP")
METRICS = {
    *(f"{task}_{name}" for task in ("zero_shot", "linear_probe") for name in ("acc1", "acc5", "mean_per_class_recall")),
    *(f"{way}retrieval_{name}" for way in ("", "image_", "text_") for name in RETRIEVAL),
    *(f"{way}_retrieval_median_rank" for way in ("image", "text")),
}
LOSSES = {"alignment_loss", "image_uniformity_loss", "text_uniformity_loss"}


def evaluate(folder=None, **options):
    """Run the command with these options."""
    fields = command.TestPairs.__dataclass_fields__.keys() & options.keys()
    test = command.TestPairs(**{name: options.pop(name) for name in fields})
    command.evaluate(folder, test=test, **options)


def read(run, name="utility"):
    return json.loads((run / "evaluate" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_study_measures_f_and_g(finished):
    found = read(finished.path)
    assert found["format"] == 1
    assert found["seeds"] == {"f": [0, 1], "g": [0, 1]}
    assert found["samples_seen"] == {"f": [160, 160], "g": [160, 160]}
    assert list(found["skipped"]) == ["zero_shot_concept", "linear_probe_sublabel"]
    assert found["skipped"]["zero_shot_concept"].startswith("0 of 20 test pairs")
    assert found["n"] | {"classes_in_test": 0} == {
        "test": 20, "labeled": 20, "captions": 20, "probe_train": 60, "probe_test": 20, "classes": 9,
        "classes_in_test": 0, "concepts": 0, "with_concept": 0, "sublabels": 98,
    }  # fmt: skip
    assert set(found["metrics"]) == {"f", "g"}
    assert set(found["chance"]) == METRICS
    for metrics in found["metrics"].values():
        assert set(metrics) == METRICS | LOSSES
    assert found["chance"]["zero_shot_acc1"] == pytest.approx(1 / 9)
    for entry in found["metrics"]["f"].values():
        assert set(entry) == {"mean", "low", "high", "over", "by_seed"}
        assert len(entry["by_seed"]) == 2
    retrieval = read(finished.path, "retrieval")
    assert retrieval["f"]["image_retrieval_recall@5"] == found["metrics"]["f"]["image_retrieval_recall@5"]


def test_zero_shot_is_that_of_the_saved_model(finished):
    found, model = read(finished.path), finished.model("g", 1)
    stored = passes.load(finished.path / "embeddings" / "g" / "seed-1").image[:, 0].double()
    label = dict(zip(finished.pairs["uid"], finished.pairs["label"], strict=True))
    labels = np.array([found["classes"].index(label[uid]) for uid in finished.splits["uid"]])
    where = (finished.splits["role"] == "external").to_numpy()
    names, templates = class_prompts(DataSection(), "label")
    with torch.inference_mode():
        classes = []
        for name in found["classes"]:
            texts = [template.replace("{}", one) for one in names[name] for template in templates]
            unit = torch.nn.functional.normalize(model.encode_text(model.tokenize(texts)).double(), dim=1)
            classes.append(torch.nn.functional.normalize(unit.mean(dim=0), dim=0))
        scores = torch.nn.functional.normalize(stored[where], dim=1) @ torch.stack(classes).T
    true = scores[torch.arange(20), torch.from_numpy(labels[where])]
    ranks = 1 + (scores > true[:, None] + 1e-9).sum(dim=1).double()
    for name, value in classification_metrics(ranks.numpy(), labels[where], 9).items():
        assert found["metrics"]["g"][f"zero_shot_{name}"]["by_seed"][1] == pytest.approx(value)


def test_summary_terminal_and_page_show_it(finished):
    utility = finished.summary.utility
    assert set(utility.metrics["f"]["linear_probe_acc1"].document()) == {"mean", "low", "high", "over"}
    console = Console(width=100, record=True, file=io.StringIO())
    with printing(json=False, verbose=True):
        print_run("report", finished.path, console)
    text = console.export_text()
    assert "Utility on 20 external pairs" in text
    row = next(line for line in text.splitlines() if "linear probe accuracy" in line)
    assert f"{100 * utility.metrics['f']['linear_probe_acc1'].mean:.1f} [" in row
    assert row.split()[-1] == "11.1"
    assert 'id="utility"' in finished.report.read_text(encoding="utf-8")


def labeled(path, n=40, classes=3, *, columns=("label",)):
    rows = [{"bytes": encoded_image(1000 + k), "path": f"{k}.png"} for k in range(n)]
    table = {"image": rows}
    if "label" in columns:
        table["label"] = [f"n{k % classes}" for k in range(n)]
    if "captions" in columns:
        table["captions"] = [[f"thing {k}", f"number {k}"] for k in range(n)]
    pl.DataFrame(table).write_parquet(path)
    return path


def test_a_labeled_source_and_the_models_of_a_run(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    data, names, templates = labeled(tmp_path / "images.parquet"), tmp_path / "n.json", tmp_path / "t.txt"
    names.write_text('{"n0": ["heart"], "n1": "flag", "n2": ["dog", "cat"], "n3": "car"}')
    templates.write_text("a {}\nthe {c}\n")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    evaluate(run, data=str(data), classnames=names, templates=templates)
    found = read(run, "images")
    assert (found["classes"], found["templates"], found["prompts"]) == (
        ["n0", "n1", "n2", "n3"],
        ["a {}", "the {c}"],
        10,
    )
    assert found["n"]["classes"] == 4
    assert found["n"]["classes_in_test"] == 3
    assert found["n"]["labeled"] == 40
    assert found["n"]["probe_train"] + found["n"]["probe_test"] == 40
    assert found["n"]["probe_train"] >= 24
    assert found["seeds"] == {"f": [0, 1], "g": [0, 1]}
    assert "acc5" not in str(found["metrics"])
    assert found["skipped"] == dict.fromkeys(
        ("zero_shot_concept", "retrieval"), "captions are labels, shared by several images"
    )
    assert not [name for name in found["metrics"]["f"] if "retrieval" in name]
    assert {file: file.read_bytes() for file in before} == before
    shown = " ".join(capsys.readouterr().out.split())
    assert "Utility on 40 pairs" in shown
    assert "Retrieval was not measured: captions are labels, shared by several images." in shown
    assert f"Written: {run / 'evaluate' / 'images.json'}" in shown
    evaluate(run, data=str(data), classnames=names, templates=templates, name="again")
    assert read(run, "again") == found


def test_a_folder_of_classes(finished, tmp_path):
    for k in range(24):
        file = tmp_path / "images" / ("cat", "dog", "cow")[k % 3] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded_image(2000 + k))
    model = str(finished.path / "models" / "g" / "seed-0")
    evaluate(model=(model,), data=str(tmp_path / "images"), out=tmp_path / "u.json")
    found = json.loads((tmp_path / "u.json").read_text())
    assert (found["classes"], found["n"]["labeled"]) == (["cat", "cow", "dog"], 24)
    assert found["skipped"] == dict.fromkeys(
        ("zero_shot_concept", "retrieval"), "captions are labels, shared by several images"
    )


def test_models_by_address_and_captions(finished, tmp_path, capsys):
    data = labeled(tmp_path / "p.parquet", columns=("label", "captions"))
    model = str(finished.path / "models" / "f" / "seed-0")
    evaluate(model=(model,), data=str(data), caption_column="captions", out=tmp_path / "u.json")
    found = json.loads((tmp_path / "u.json").read_text())
    assert (list(found["skipped"]), found["samples_seen"]) == (["zero_shot_concept"], {model: [None]})
    assert found["n"]["captions"] == 80
    # three classes called by their labels: chance is a third
    assert found["chance"]["zero_shot_acc1"] == pytest.approx(1 / 3)
    # the best of two captions among five of eighty: 1 - (75 · 74) / (80 · 79)
    assert found["chance"]["text_retrieval_recall@5"] == pytest.approx(0.1218, abs=1e-4)
    assert found["chance"]["image_retrieval_recall@5"] == pytest.approx(0.125)
    assert "…" in capsys.readouterr().out


def test_pairs_that_a_model_trained_on_are_left_out(finished, tmp_path):
    run, role = tmp_path / "run", pl.col("role")
    shutil.copytree(finished.path, run)
    external = finished.splits.filter(role == "external")["uid"].to_list()
    others = [finished.splits.filter(role == name)["uid"][0] for name in ("shared", "candidate", "independent")]
    uids = [*external, *others]
    captions = dict(finished.pairs.select("uid", "captions").iter_rows())
    label = dict(finished.pairs.select("uid", "label").iter_rows())
    table = {
        "image": list(finished.images(uids).values()),
        "words": [captions[uid] for uid in uids],
        "kind": [label[uid] for uid in uids],
    }
    pl.DataFrame(table).write_parquet(tmp_path / "mixed.parquet")
    evaluate(run, data=str(tmp_path / "mixed.parquet"), label_column="kind", caption_column="words", name="rest")
    found, own = read(run, "rest"), read(run)
    assert found["left_out"] == 3
    assert found["n"]["test"] == 20
    # the same images, of which the study scores the first caption only
    same = "zero_shot_acc1"
    assert len(found["metrics"]["f"][same]["by_seed"]) == 2
    assert found["n"]["captions"] > own["n"]["captions"] == 20


def test_the_external_pairs_by_other_classes(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    evaluate(run, labels="sublabel")
    found, usual = read(run, "external"), read(run)
    assert found["n"]["classes"] == 98
    assert found["labels"] == "sublabel"
    assert found["n"]["test"] == 20
    same = "image_retrieval_recall@5"
    assert found["metrics"]["f"][same] == usual["metrics"]["f"][same]
    evaluate(run, labels="label")
    assert read(run, "external") == {**usual, "protocol": "four-way"}


def test_shared_captions_are_concepts_and_right_for_each_other(finished, tmp_path):
    run, data = tmp_path / "run", tmp_path / "p.parquet"
    shutil.copytree(finished.path, run)
    rows = [{"bytes": encoded_image(1000 + k), "path": f"{k}.png"} for k in range(40)]
    captions = [[f"Thing {k % 8}" if k % 2 else f"thing  {k % 8}", f"number {k}"] for k in range(38)]
    pl.DataFrame({"image": rows, "captions": [*captions, ["alone"], ["single"]], "label": ["x"] * 40}).write_parquet(
        data
    )
    evaluate(run, data=str(data), caption_column="captions")
    found = read(run, "p")
    assert (found["n"]["concepts"], found["n"]["with_concept"], found["n"]["captions"]) == (8, 38, 78)
    assert found["prompts"] == 8 * len(found["templates"])
    assert found["skipped"] == dict.fromkeys(("zero_shot", "linear_probe"), "there is only one class")
    assert found["chance"]["zero_shot_concept_acc1"] == 1 / 8
    # 48 distinct captions: 8 names, 38 numbers and two more; 2 are right for most images, 1 for two
    assert found["chance"]["text_retrieval_recall@1"] == pytest.approx((38 * 2 / 48 + 2 / 48) / 40)
    assert {name for name in found["metrics"]["f"] if "concept" in name} == {
        f"zero_shot_concept_{name}" for name in ("acc1", "acc5", "mean_per_class_recall")
    }


def test_models_embedded_side_by_side_are_as_those_alone(finished, tmp_path):
    run, data = tmp_path / "run", labeled(tmp_path / "p.parquet", columns=("label", "captions"))
    shutil.copytree(finished.path, run)
    evaluate(run, data=str(data), caption_column="captions")
    models = tuple(str(run / "models" / side / f"seed-{seed}") for side in "fg" for seed in (0, 1))
    evaluate(model=models, data=str(data), caption_column="captions", out=tmp_path / "u.json")
    both, alone = read(run, "p"), json.loads((tmp_path / "u.json").read_text())
    for name in ("alignment_loss", "text_uniformity_loss"):
        together = [value for side in "fg" for value in both["metrics"][side][name]["by_seed"]]
        single = [alone["metrics"][model][name]["mean"] for model in models]
        assert together == pytest.approx(single, rel=1e-3)
        assert len(set(together)) == 4


def test_models_embed_other_data_in_the_precision_of_the_study(finished, tmp_path, monkeypatch):
    run, data, asked = tmp_path / "run", labeled(tmp_path / "p.parquet", n=12, columns=("captions",)), []
    shutil.copytree(finished.path, run)
    monkeypatch.setattr(PlannedStudy, "precision", "bf16")
    computing = embeddings.computing
    monkeypatch.setattr(embeddings, "computing", lambda *a, **k: asked.append(a[0]) or computing(*a, **k))
    evaluate(run, data=str(data))
    assert asked.count("bf16") == 4  # f and g of two seeds
    assert read(run, "p")["skipped"]["zero_shot"] == "the source has no labels: set a label column"


@pytest.mark.parametrize(
    ("settings", "precision"),
    [((), "bf16"), (("embed.precision=fp32",), "fp32"), (("protocol=given", *GIVEN), "fp32")],
)
def test_the_precision_of_a_study(tmp_path, settings, precision):
    study = PlannedStudy(tmp_path, load_recipe("", settings))
    study.execution = Execution("cpu", "bf16", 1, 1)
    assert study.precision == precision


def test_without_labels_a_study_has_retrieval_alone(tmp_path):
    from tests.tiny import write_parquet

    settings = ["data.source=parquet", f"data.path={tmp_path / 'p.parquet'}", "split.shared=10", "split.planted=0"]
    settings += [f"split.{role}=4" for role in ("candidate", "independent", "external")]
    settings += ["train.seeds=[0]", "train.epochs=1", "train.batch_size=7"]
    write_parquet(tmp_path / "p.parquet", 30)
    run = clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    found = read(run.path)
    assert found["skipped"] == {
        **dict.fromkeys(("zero_shot", "linear_probe"), "no external pair has a label"),
        "zero_shot_concept": "0 of 4 test pairs have the first caption of another pair, fewer than half",
    }
    assert {name for name in found["metrics"]["f"] if "retrieval" not in name} == LOSSES
    console = Console(width=100, record=True, file=io.StringIO())
    with printing(json=False, verbose=True):
        print_run("report", run.path, console)
    text = " ".join(console.export_text().split())
    assert "Zero-shot classification was not measured: no external pair has a label." in text
    assert "The linear probe was not measured: no external pair has a label." in text
    page = run.report.read_text(encoding="utf-8")
    assert "Zero-shot classification was not measured" in page


def test_a_class_without_a_name_is_refused_before_anything_is_trained(tmp_path):
    names = tmp_path / "names.json"
    names.write_text('{"flags": "flag"}')
    with pytest.raises(InputError) as error:
        clipmem.run(tiny_recipe(f"evaluate.classnames={names}"), tmp_path / "run")
    assert str(error.value).startswith(
        "class names: got none for label 'activities' (8 of 9 labels have none), expected a name for every label"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_model_without_a_text_tower_has_a_probe_alone(tmp_path):
    settings = ["train.objective=simclr", "score.alignment=sslmem-image", "embed.views=2", "train.seeds=[0]"]
    settings += ["train.epochs=1", "split.shared=30", "split.planted=0"]
    settings += [f"split.{role}=8" for role in ("candidate", "independent", "external")]
    run = clipmem.run(tiny_recipe(*settings), tmp_path / "run")
    found = read(run.path)
    assert found["skipped"] == {
        **dict.fromkeys(("zero_shot", "zero_shot_concept", "retrieval"), "objective 'simclr' trains no text tower"),
        "linear_probe_sublabel": "30 pairs to train on have 21 classes, fewer than two pairs a class",
    }
    assert {name.removeprefix("linear_probe_") for name in found["metrics"]["f"]} == {
        "acc1", "acc5", "mean_per_class_recall",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"folder": None},
            "clipmem evaluate: got neither a run folder nor --model, expected one of them. "
            "For example: clipmem evaluate runs/mine, or clipmem evaluate --model FOLDER --data PATH.",
        ),
        (
            {"model": ("m",)},
            "clipmem evaluate: got a run folder and --model, expected one of them. "
            "For example: clipmem evaluate runs/mine, or clipmem evaluate --model FOLDER --data PATH.",
        ),
        (
            {"folder": None, "model": ("m",)},
            "--model: got no --data, expected pairs to evaluate on. Add --data PATH.",
        ),
        (
            {"name": "utility"},
            "--name: got 'utility', expected a file name that is not one of utility, retrieval, dejavu, retained. "
            "Give another --name.",
        ),
        (
            {"name": "a/b"},
            "--name: got 'a/b', expected a file name that is not one of utility, retrieval, dejavu, retained. "
            "Give another --name.",
        ),
    ],
)
def test_errors_of_the_command(finished, changes, message):
    options = {"folder": finished.path, **changes}
    if "model" in options:
        options["model"] = (str(finished.path / "models" / "f" / "seed-0"),)
    with pytest.raises(InputError) as error:
        evaluate(options.pop("folder"), **options)
    assert str(error.value) == message


def test_the_same_model_twice(finished, tmp_path):
    model = str(finished.path / "models" / "f" / "seed-0")
    with pytest.raises(InputError, match=r"^--model: got a duplicate, expected each model once\."):
        evaluate(model=(model, model), source="emoji", out=tmp_path / "u.json")


def test_exit_code(tmp_path):
    done = subprocess.run([sys.executable, "-m", "clipmem", "evaluate", "none"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("clipmem: none: got no such folder")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"got no such folder, expected a folder created by `clipmem run`"):
        evaluate(tmp_path / "none")
