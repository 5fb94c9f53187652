"""Models and objectives of a package outside the tree are called what its declarations say."""

import shutil
import sys

import pytest

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.cli import main
from clipmem.scoring.protocols import PROTOCOLS
from clipmem.study.localizing import localize_run
from clipmem.train.objectives import OBJECTIVES
from tests.tiny import tiny_recipe

PLUG = '''
from dataclasses import replace

import numpy as np

from clipmem.scoring.design import Design
from clipmem.scoring.protocols.base import Protocol
from clipmem.train.objectives.clip import Clip
from clipmem.train.paired import training_set


class Taught(Protocol):
    """Twins, of which none is called f or g."""

    summary = "Twins with names of their own."
    paired = True
    count = property(lambda self: 2 * len(self.recipe.train.seeds))

    def design(self, splits):
        seeds, sides = self.recipe.train.seeds, {"untaught": "g", "taught": "f"}
        models = [replace(training_set(splits, own, k), side=name) for k in seeds for name, own in sides.items()]
        return Design(models, np.tile(np.array([[-1], [1]], dtype=np.int8), (len(seeds), splits.height)))


class Soft(Clip):
    """The loss of CLIP, under a name of its own."""

    title = "SoftCLIP"


class Plain(Clip):
    """The same, called as in recipes."""

    title = ""
'''


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """A protocol and two objectives, installed for this process and those that it starts."""
    place = tmp_path / "site"
    information = place / "clipmem_names_plug-1.dist-info"
    information.mkdir(parents=True)
    (place / "clipmem_names_plug.py").write_text(PLUG)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: clipmem-names-plug\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[clipmem.protocols]\ntaught = clipmem_names_plug:Taught\n"
        "[clipmem.objectives]\nsoft = clipmem_names_plug:Soft\nplain-clip = clipmem_names_plug:Plain\n"
    )
    monkeypatch.syspath_prepend(str(place))
    yield
    PROTOCOLS._items.pop("taught", None)
    OBJECTIVES._items.pop("soft", None)
    OBJECTIVES._items.pop("plain-clip", None)
    sys.modules.pop("clipmem_names_plug", None)


@pytest.mark.usefixtures("plug", "fresh")
def test_sides_are_those_of_the_design(tmp_path):
    run = clipmem.run(tiny_recipe("protocol=taught", "train.epochs=1"), tmp_path / "taught")
    assert sorted(file.name for file in (run.path / "models").iterdir()) == ["taught", "untaught"]
    utility = run.summary.utility
    assert set(utility.metrics) == {"f", "g"}
    assert [utility.seeds[side] for side in "fg"] == [[0, 1], [0, 1]]


@pytest.mark.slow
@pytest.mark.usefixtures("plug", "fresh")
def test_objectives_have_their_titles(tmp_path, capsys):
    settings = ("train.epochs=1", "train.seeds=[0]", "localize.crop=own", "localize.views=2", "localize.pairs=4")
    for name in ("soft", "plain-clip"):
        localize_run(clipmem.run(tiny_recipe(*settings, f"train.objective={name}"), tmp_path / name).path)
    shutil.copytree(tmp_path / "soft", tmp_path / "again")
    main(
        [
            "localize",
            str(tmp_path / "soft"),
            "--compare-with",
            *(str(tmp_path / one) for one in ("plain-clip", "again")),
        ]
    )
    document = RunFolder(tmp_path / "soft").read_json("localize/side_by_side.json")
    assert [one["run"] for one in document["runs"]] == ["SoftCLIP (soft)", "plain-clip", "SoftCLIP (again)"]
    assert "SoftCLIP (again)" in capsys.readouterr().out
