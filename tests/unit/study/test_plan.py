"""Needs that only the data can meet, and what a study would take: refused before anything is written."""

from pathlib import Path

import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import load_recipe
from clipmem.models.start import Start
from clipmem.scoring.protocols import protocol_of
from clipmem.study import forecast
from clipmem.study.execution import Execution
from clipmem.study.plan import check_needs
from tests.tiny import tiny_recipe, write_parquet

CPU = Execution("cpu", "fp32", 1, 2)


def pairs(n=120, *, captions=1, label="", variants=0):
    """A table of pairs."""
    return pl.DataFrame(
        {
            "uid": [f"{k:032x}" for k in range(n)],
            "captions": [[f"thing {k}, {time}" for time in range(captions)] for k in range(n)],
            "label": [label] * n,
            "variants": pl.Series([["x"] * variants] * n, dtype=pl.List(pl.String)),
        }
    )


def refused(recipe, table):
    with pytest.raises(InputError) as caught:
        check_needs(recipe, protocol_of(recipe), table)
    assert caught.value.hint
    return caught.value


SUPERVISED = ("train.objective=supervised", "score.alignment=sslmem-image", "embed.views=2")


@pytest.mark.parametrize("labeled", [0, 1, 119])
def test_supervised_needs_a_label_for_every_pair(labeled):
    table = pairs().with_columns(label=pl.Series([f"c{k % 3}" if k < labeled else "" for k in range(120)]))
    error = refused(tiny_recipe(*SUPERVISED), table)
    assert error.what == "[train] objective = 'supervised'"
    assert error.got.startswith(f"{120 - labeled} of 120 pairs without a label")
    assert "data.label_column" in error.hint


def test_supervised_needs_two_labels():
    assert "'cat'" in refused(tiny_recipe(*SUPERVISED), pairs(label="cat")).got
    several = pairs().with_columns(label=pl.Series([f"c{k % 2}" for k in range(120)]))
    check_needs(tiny_recipe(*SUPERVISED), protocol_of(tiny_recipe(*SUPERVISED)), several)


@pytest.mark.parametrize(("captions", "trained", "wordings"), [(1, 1, 2), (3, 3, 4), (2, 5, 6)])
def test_wordings_need_pairs_with_more_captions(captions, trained, wordings):
    settings = (f"train.captions={trained}", f"evaluate.wordings={wordings}")
    error = refused(tiny_recipe(*settings), pairs(captions=captions))
    assert error.what == "[evaluate] wordings"
    assert error.got.startswith(f"{wordings}, with at most {captions} captions")
    assert f"train.captions = {trained} " in error.expected
    recipe = tiny_recipe(f"train.captions={trained}", f"evaluate.wordings={trained}")
    check_needs(recipe, protocol_of(recipe), pairs(captions=captions))  # those that are scored anyway
    one = pairs(captions=trained).vstack(pairs(1, captions=trained + 1))
    check_needs(tiny_recipe(*settings), protocol_of(tiny_recipe(*settings)), one)


@pytest.mark.parametrize("wordings", [0, -1, 1001, 1.5, "all"])
def test_numbers_of_wordings_that_are_none(wordings):
    with pytest.raises(InputError) as caught:
        load_recipe("", [f"evaluate.wordings={wordings}"])
    assert "[evaluate] wordings" in str(caught.value)
    assert str(wordings) in str(caught.value.got)


def test_wordings_need_a_text_tower():
    settings = ("train.objective=simclr", "score.alignment=sslmem-image", "embed.views=2")
    with pytest.raises(InputError, match=r"\[evaluate\] wordings = 3"):
        tiny_recipe(*settings, "evaluate.wordings=3")
    tiny_recipe(*settings, "evaluate.wordings=1")


def test_nothing_is_written_where_labels_are_missing(tmp_path):
    data = write_parquet(tmp_path / "pairs.parquet", 130)
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(*SUPERVISED, f"data.path='{data}'"), tmp_path / "run")
    assert "130 of 130 pairs" in caught.value.got
    assert not (tmp_path / "run").exists()


def test_text_views_are_missed_before_anything_is_written():
    recipe = tiny_recipe("score.alignment=sslmem-text", "train.captions=2")
    assert refused(recipe, pairs()).got.startswith("120 pairs")
    check_needs(recipe, protocol_of(recipe), pairs(captions=2))
    # ten pairs without a second caption may all be among the ten that no role takes; eleven may not
    some = pl.concat([pairs(120, captions=2), pairs(10)])
    check_needs(recipe, protocol_of(recipe), some)
    assert refused(recipe, pl.concat([pairs(119, captions=2), pairs(11)])).got.startswith("11 pairs")


def test_mitigations_need_what_they_show():
    several = tiny_recipe("mitigate.captions.count=3")
    assert refused(several, pairs()).what == "[mitigate.captions] count"
    check_needs(several, protocol_of(several), pairs(captions=2))
    images = tiny_recipe("mitigate.image_variants.probability=0.5")
    assert refused(images, pairs()).what == "[mitigate.image_variants] source = 'given'"
    check_needs(images, protocol_of(images), pairs(variants=1))


def test_leave_one_out_needs_its_candidates():
    recipe = tiny_recipe("protocol=leave-one-out", "leave_one_out.pairs=21")
    with pytest.raises(InputError) as caught:
        protocol_of(recipe).check_pairs(pairs())
    assert (caught.value.got, caught.value.expected) == ("21 of 20 candidates", "at most 20")
    named = tiny_recipe("protocol=leave-one-out", f"leave_one_out.uids=['{'f' * 32}']")
    with pytest.raises(InputError) as caught:
        protocol_of(named).check_pairs(pairs())
    assert caught.value.got == "f" * 32


# ---- time, memory and disk space


def test_work_is_counted():
    four = forecast.work_of(recipe := tiny_recipe("embed.views=3"), protocol_of(recipe), pairs(captions=2))
    # two seeds of f and g, two epochs of 80 pairs; 120 pairs with three views and one caption
    assert four == (4 * 2 * 80, 4 * 120 * (3 + 1) / 2)
    many = tiny_recipe("protocol=subsample", "subsample.models=10", "mitigate.early_stopping.share=0.5")
    assert forecast.work_of(many, protocol_of(many), pairs())[0] == 10 * 1 * 70
    alone = tiny_recipe("protocol=leave-one-out", "leave_one_out.pairs=5")
    assert forecast.work_of(alone, protocol_of(alone), pairs())[0] == 12 * 2 * 80


def trained(recipe):
    """Presentations that cost as much as training and embedding 2,000 pairs."""
    presentations, passes = forecast.work_of(recipe, protocol_of(recipe), pairs(2000))
    return presentations + passes / 3


def check(recipe, how=CPU, place=Path("/")):
    start = Start(recipe.model, recipe.train)
    forecast.check_forecast(recipe, protocol_of(recipe), pairs(2000), how, start, place)


def test_what_is_surely_short_is_not_measured(monkeypatch):
    monkeypatch.setattr(forecast, "training_rate", lambda *_: pytest.fail("measured"))
    check(load_recipe("", ["model.name=ViT-B-32", "train.epochs=1"]))


@pytest.mark.parametrize("rate", [0.9, 1.1])
def test_the_measured_rate_decides(monkeypatch, rate):
    recipe = load_recipe("", ["train.epochs=10000"])
    needed = trained(recipe) / forecast.LONGEST
    monkeypatch.setattr(forecast, "training_rate", lambda *_: rate * needed)
    if rate > 1:
        check(recipe)
        return
    with pytest.raises(InputError) as caught:
        check(recipe)
    assert (caught.value.what, caught.value.expected) == ("time of the study", "at most a day")
    assert "1.1 days" in caught.value.got
    assert "--yes" in caught.value.hint
    assert "allow_long=True" in caught.value.hint


def test_several_gpus_share_the_time(monkeypatch):
    recipe = load_recipe("", ["train.epochs=100000"])
    needed = trained(recipe) / forecast.LONGEST
    monkeypatch.setattr(forecast, "training_rate", lambda *_: 0.3 * needed)
    with pytest.raises(InputError):
        check(recipe, Execution("cuda", "bf16", 1, 1))
    check(recipe, Execution("cuda", "bf16", 1, 4, processes=4))


def test_space_is_compared_with_what_the_machine_has(monkeypatch, tmp_path):
    usage = forecast.shutil.disk_usage(tmp_path)
    recipe = load_recipe("", ["embed.views=100"])
    monkeypatch.setattr(forecast, "training_rate", lambda *_: 1e9)
    # 2,000 images of 64 x 64 pixels; four models, 1,900 pairs, 100 views and a caption, 128 numbers of 4 bytes
    needed = 2000 * 64 * 64 * 3 + 4 * (1900 * 101 * 128 * 4 + 4 * 7_851_393)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: usage._replace(free=needed))
    check(recipe, place=tmp_path / "not" / "there")
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(InputError) as caught:
        check(recipe, place=tmp_path / "not" / "there")
    assert caught.value.what == "disk space of the study"
    assert str(tmp_path) in caught.value.expected
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _: usage._replace(free=10**18))
    monkeypatch.setattr(forecast, "memory", lambda: 100_000_000)
    with pytest.raises(InputError) as caught:
        check(recipe)
    assert caught.value.what == "memory of the study"


def test_consent_is_asked_for_before_anything_is_written(monkeypatch, tmp_path):
    def refuse(*_):
        raise InputError("time of the study")

    def claimed(*_):
        raise InputError("the folder")

    monkeypatch.setattr(forecast, "check_forecast", refuse)
    monkeypatch.setattr(RunFolder, "claim", claimed)  # the first that is written, after the forecast
    with pytest.raises(InputError, match="time of the study"):
        clipmem.run(tiny_recipe(), tmp_path / "run")
    with pytest.raises(InputError, match="the folder"):
        clipmem.run(tiny_recipe(), tmp_path / "run", allow_long=True)
    assert not (tmp_path / "run").exists()
