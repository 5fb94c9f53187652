"""What a study would take: refused before anything is written."""

from pathlib import Path

import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import load_recipe
from clipmem.models.start import Start
from clipmem.scoring.protocols import protocol_of
from clipmem.study import forecast
from clipmem.study.execution import Execution
from tests.tiny import tiny_recipe
from tests.unit.study.test_plan import pairs, trained

CPU = Execution("cpu", "fp32", 1, 2)


def test_work_is_counted():
    four = forecast.work_of(recipe := tiny_recipe("embed.views=3"), protocol_of(recipe), pairs(captions=2))
    # two seeds of f and g, two epochs of 80 pairs; 120 pairs with three views and one caption
    assert four == (4 * 2 * 80, 4 * 120 * (3 + 1) / 2)
    many = tiny_recipe("protocol=subsample", "subsample.models=10", "mitigate.early_stopping.share=0.5")
    assert forecast.work_of(many, protocol_of(many), pairs())[0] == 10 * 1 * 70
    alone = tiny_recipe("protocol=leave-one-out", "leave_one_out.pairs=5")
    assert forecast.work_of(alone, protocol_of(alone), pairs())[0] == 12 * 2 * 80


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


@pytest.mark.slow
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
