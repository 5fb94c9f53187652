"""A source and a mitigation of a package outside the tree are found by their entry points and work like ours."""

import dataclasses
import sys

import polars as pl
import pytest

from clipmem.base.declared import BUILT_IN, Facts, declared
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.mitigations import MitigateSection, MitigationSection
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import DataSection
from clipmem.data.inspection import inspect_source
from clipmem.data.sources import SOURCES, detect, open_source
from clipmem.mitigate import MITIGATIONS, base
from clipmem.scoring.alignments import ALIGNMENTS
from clipmem.scoring.protocols import PROTOCOLS
from clipmem.train.objectives import OBJECTIVES
from clipmem.train.paired import training_set
from tests.tiny import encoded_image
from tests.unit.train.test_loop import uid

PLUG = '''
from pathlib import Path

from clipmem.base.mitigations import MitigationSection
from clipmem.data.sources.base import Source
from clipmem.data.sources.records import Part, Record, examine_file, read_file
from clipmem.mitigate.base import Mitigation


class Pipes(Source):
    """Lines of `PATH || CAPTION`, whole paths."""

    summary = "Lines of a path and a caption, with two bars between them."
    rank = 35

    @classmethod
    def recognize(cls, probe):
        return "lines with two bars" if probe.lines and all(" || " in line for line in probe.lines) else ""

    def records(self):
        with open(self.section.path) as stream:
            for number, line in enumerate(stream, 1):
                self.ledger.read += 1
                path, caption = line.rstrip("\\n").split(" || ")
                parts = [Part(str(number), [caption])]
                yield Record(self.section.path, str(number), path, examine_file(Path(path)), parts)

    def read(self, references):
        return [read_file(Path(reference)) for reference in references]


class DropLongest(Mitigation):
    """Leave out the pair with the longest uid."""

    summary = "Drop a pair."

    class Settings(MitigationSection):
        count: int = 0

    @classmethod
    def edit(cls, recipe, splits, parent, pairs):
        kept = splits.head(splits.height - cls.section_of(recipe).count)
        return kept, {"dropped": splits.tail(cls.section_of(recipe).count)}

    @classmethod
    def hook(cls, training):
        return None
'''


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """Install a package that gives one source and one mitigation."""
    place = tmp_path / "site"
    information = place / "clipmem_unit_plug-1.dist-info"
    information.mkdir(parents=True)
    (place / "clipmem_unit_plug.py").write_text(PLUG)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: clipmem-unit-plug\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[clipmem.sources]\npipes = clipmem_unit_plug:Pipes\n"
        "[clipmem.mitigations]\ndrop_longest = clipmem_unit_plug:DropLongest\n"
    )
    monkeypatch.syspath_prepend(str(place))
    yield
    SOURCES._items.pop("pipes", None)
    MITIGATIONS._items.pop("drop_longest", None)
    sys.modules.pop("clipmem_unit_plug", None)


@pytest.mark.usefixtures("plug")
def test_a_source_is_recognized_opened_and_looked_through(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    path = tmp_path / "pairs.pipes"
    path.write_text("".join(f"{tmp_path}/{k}.png || number {k}\n" for k in range(4)))
    assert "pipes" in set(SOURCES)
    assert detect(str(path)) == ("pipes", str(path), "lines with two bars")
    source = open_source(DataSection(path=str(path)))
    assert (source.name, source.summary[:5]) == ("pipes", "Lines")
    facts, _ = inspect_source(source)
    assert facts["records"] == {
        "read": 4, "pairs": 3, "merged": 0, "left_out": 1, "unnamed": 0, "ignored": {},
    }  # fmt: skip
    assert [one.reason for one in source.problems] == ["no such image file"]
    pairs = source.pairs()
    assert sorted(source.read(pairs["image"].to_list())) == sorted(encoded_image(k) for k in range(3))
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(path), split="train"))
    assert error.value.what == "[data] split"


@pytest.mark.usefixtures("plug")
def test_a_mitigation_edits_the_split_and_has_no_part_in_the_training(tmp_path):
    recipe = load_recipe("[train]\ncaptions = 3\n[mitigate.drop_longest]\ncount = 2")
    roles = ["shared", "shared", "candidate", "independent", "external", "external"]
    splits = pl.DataFrame({"uid": [uid(k) for k in range(6)], "role": roles})
    base.check(recipe, splits)
    kept, tables = base.edit(recipe, splits, base.parents_of(recipe), splits)
    assert kept["role"].to_list() == roles[:4]
    assert tables["dropped"]["role"].to_list() == roles[4:]
    assert base.captions_in_training(recipe) == 3
    assert base.hooks_of(base.Training(recipe, training_set(splits, "f", 1), RunFolder(tmp_path), splits)).all == ()


@pytest.mark.parametrize(
    ("kind", "registry", "facts"),
    [
        ("protocols", PROTOCOLS, ("trains", "paired", "scored")),
        ("alignments", ALIGNMENTS, ("needs",)),
        ("objectives", OBJECTIVES, ("uses_text", "class_head", "normalizes", "weighs")),
    ],
)
def test_what_recipes_know_without_torch_is_what_the_classes_say(kind, registry, facts):
    assert {name: tuple(getattr(declared(kind, name), fact) for fact in facts) for name in BUILT_IN[kind]} == {
        name: tuple(getattr(registry[name], fact) for fact in facts) for name in registry
    }
    # nobody asks a kind for the facts of another
    others = {fact.name for fact in dataclasses.fields(Facts)} - set(facts)
    assert all(getattr(BUILT_IN[kind][name], fact) == getattr(Facts(), fact) for name in registry for fact in others)


def test_tables_of_mitigations_are_those_of_the_classes():
    assert set(MITIGATIONS) == set(MitigateSection.model_fields)
    assert all(issubclass(field.annotation, MitigationSection) for field in MitigateSection.model_fields.values())


@pytest.mark.usefixtures("plug")
def test_code_that_cannot_be_imported_is_an_error_of_the_package(tmp_path):
    (tmp_path / "site" / "clipmem_unit_plug.py").write_text("import nothing_of_this_name")
    assert load_recipe("").protocol == "four-way"  # nobody asked for it
    with pytest.raises(InputError) as error:
        load_recipe("[mitigate.drop_longest]\ncount = 2")
    assert error.value.what == "clipmem.mitigations 'drop_longest' from clipmem-unit-plug"
    assert "nothing_of_this_name" in error.value.got


def test_every_source_says_what_it_reads():
    assert all(SOURCES[name].name == name and SOURCES[name].summary.endswith(".") for name in SOURCES)
    asked = [SOURCES[name].rank for name in SOURCES if "recognize" in vars(SOURCES[name])]
    assert len(set(asked)) == len(asked)  # no two are asked in an order that nobody decided
