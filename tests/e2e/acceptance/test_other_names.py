"""Protocols and objectives of other packages: sides are those of the design, and objectives are localized."""

import sys

import polars as pl
import pytest

import clipmem
from clipmem.scoring.protocols import PROTOCOLS
from clipmem.study.localizing import localize_run
from clipmem.train.objectives import OBJECTIVES
from tests.tiny import tiny_recipe

PLUG = '''
from dataclasses import replace

import numpy as np

from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import Protocol
from clipmem.train.objectives.contrastive import Clip
from clipmem.train.paired import training_set


class Taught(Protocol):
    """Paired models, of which none is called f or g."""

    summary = "Paired models with names of their own."
    paired = True
    count = property(lambda self: 2 * len(self.recipe.train.seeds))

    def design(self, splits):
        seeds, sides = self.recipe.train.seeds, {"untaught": "g", "taught": "f"}
        models = [replace(training_set(splits, own, k), side=name) for k in seeds for name, own in sides.items()]
        return Design(models, np.tile(np.array([[-1], [1]], dtype=np.int8), (len(seeds), splits.height)))


class Soft(Clip):
    """The loss of CLIP, under a name of its own."""
'''


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """A protocol and an objective, installed for this process and those that it starts."""
    place = tmp_path / "site"
    information = place / "clipmem_names_plug-1.dist-info"
    information.mkdir(parents=True)
    (place / "clipmem_names_plug.py").write_text(PLUG)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: clipmem-names-plug\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[clipmem.protocols]\ntaught = clipmem_names_plug:Taught\n"
        "[clipmem.objectives]\nsoft = clipmem_names_plug:Soft\n"
    )
    monkeypatch.syspath_prepend(str(place))
    yield
    PROTOCOLS._items.pop("taught", None)
    OBJECTIVES._items.pop("soft", None)
    sys.modules.pop("clipmem_names_plug", None)


@pytest.mark.slow
@pytest.mark.usefixtures("plug", "fresh")
def test_sides_are_those_of_the_design(tmp_path):
    run = clipmem.run(tiny_recipe("protocol=taught", "train.epochs=1"), tmp_path / "taught")
    assert sorted(file.name for file in (run.path / "models").iterdir()) == ["taught", "untaught"]
    utility = run.summary.utility
    assert set(utility.metrics) == {"f", "g"}
    assert [utility.seeds[side] for side in "fg"] == [[0, 1], [0, 1]]


@pytest.mark.slow
@pytest.mark.usefixtures("plug", "fresh")
def test_an_objective_of_a_plugin_is_localized(tmp_path):
    settings = ("train.epochs=1", "train.seeds=[0]", "localize.views=2", "localize.pairs=4")
    run = clipmem.run(tiny_recipe(*settings, "train.objective=soft"), tmp_path / "soft")
    localize_run(run.path)
    units = pl.read_parquet(run.path / "localize" / "units.parquet")
    assert set(units["tower"]) == {"image", "text"}  # as the class says, not a list of the shipped objectives
    assert set(units["side"]) == {"f", "g"}
    assert (run.path / "localize" / "towers.parquet").is_file()
