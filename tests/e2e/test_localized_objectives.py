"""Studies of three objectives, tiny but real, are localized over the same pairs and views.

Takes minutes: `pytest -m slow tests/e2e/test_localized_objectives.py`.
"""

import json

import polars as pl
import pytest

import clipmem
from clipmem.study.localizing import localize_run
from tests.e2e.running import clip
from tests.tiny import tiny_recipe

pytestmark = pytest.mark.slow
OWN = ("localize.crop=own", "localize.views=2", "localize.pairs=8")
ONE_TOWER = ("score.alignment=sslmem-image", "embed.views=2")
STUDIES = {
    "clip": (),
    "supervised": ("train.objective=supervised", *ONE_TOWER),
    "simclr": ("train.objective=simclr", "train.crop_scale=[0.3, 1.0]", "train.color=0.5", *ONE_TOWER),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("paradigms")
    for name, settings in STUDIES.items():
        clipmem.run(tiny_recipe(*settings, *OWN), root / name)
        localize_run(root / name)
    return root


def test_a_text_tower_that_was_not_trained_is_left_out_with_its_reason(runs):
    for name in ("supervised", "simclr"):
        folder = runs / name
        assert set(pl.read_parquet(folder / "localize" / "units.parquet")["tower"]) == {"image"}
        assert set(pl.read_parquet(folder / "localize" / "layers.parquet")["tower"]) == {"image"}
        assert not list((folder / "localize").glob("towers.*"))
        reason = f"objective '{name}' trains no text tower: f and g have the same initial one"
        settings = json.loads((folder / "localize" / "settings.json").read_text())
        assert (settings["towers"], settings["untrained_text"]) == (["image"], reason)
        text = clip("localize", folder).stdout
        said = f"The text tower and the tower swap are left out: {reason}."
        assert said in " ".join(text.split())
        page = (folder / "report" / "index.html").read_text(encoding="utf-8")
        assert said.replace("'", "&#39;") in page
        assert "Shares of the towers" not in page
    assert set(pl.read_parquet(runs / "clip" / "localize" / "units.parquet")["tower"]) == {"image", "text"}
    assert (runs / "clip" / "localize" / "towers.parquet").is_file()


def test_all_three_are_localized_over_the_same_pairs_and_views(runs):
    found = [json.loads((runs / name / "localize" / "settings.json").read_text()) for name in STUDIES]
    for name in ("views", "points_sha256"):
        assert found[0][name] == found[1][name] == found[2][name]
    views = found[2]["views"]  # not those that SimCLR was trained with
    assert (views["crop_scale"], views["flip"], views["views"]) == ([0.9, 1.0], 0.0, 2)
