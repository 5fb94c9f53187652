"""The models of a study: trained ones in its run folder, given ones at their addresses."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from clipmem.base import manifest
from clipmem.base.declared import declared
from clipmem.base.errors import InputError, require, shorten, shorten_text
from clipmem.base.folder import RunFolder, refuse_other
from clipmem.base.hashing import file_sha256
from clipmem.base.recipes import Recipe
from clipmem.data.decoding import Geometry
from clipmem.models import given
from clipmem.models.given import ModelFacts
from clipmem.models.names import model_config
from clipmem.models.protocol import DualEncoder, geometry_of
from clipmem.models.start import Start

LISTS = {"f": "target", "g": "reference"}
BASE = "base"  # side of the pretrained model that f and g start from


class Given(TypedDict):
    """The given models in a manifest, and the file of roles, if there is one."""

    target: list[ModelFacts]
    reference: list[ModelFacts]
    roles: dict[str, str] | None


class Entries(TypedDict):
    """The models in a manifest: given ones, or what training started from and an existing f."""

    given: Given
    base: NotRequired[ModelFacts]
    f: NotRequired[ModelFacts]


def _no_model(side: str, seed: int, expected: str, hint: str) -> InputError:
    subject = f"model {shorten(side)}, seed {shorten(seed)}"
    return InputError(subject, got="no such model in this run", expected=expected, hint=hint)


class TrainedModels:
    """Models that the study trains."""

    def __init__(self, recipe: Recipe, folder: RunFolder, entries: Entries | None = None) -> None:
        self.start, self._folder = Start(recipe.model, recipe.train, entries and entries.get("base")), folder
        self._name, address = recipe.model.name, recipe.halves.model
        self._f = given.find(address) if address else None  # an existing one, of the protocol halves

    def describe(self) -> dict[str, ModelFacts]:
        """Check what training starts from; return the pretrained model's address, hashes and size, if there is one."""
        described = self.start.describe()
        if self._f is None:
            return described
        encoder, subject = given.load(self._f), f"[halves] model = {shorten(self._f.name)}"
        config, geometry = getattr(encoder, "config", None), self.start.geometry
        got, expected = f"images of {geometry_of(encoder)}", f"those of the shadow models: {geometry}"
        require(geometry_of(encoder) == geometry, subject, got, expected, "Set model.name to its architecture.")
        same = config is None or not self._name or config == model_config(self._name)
        hint = "Set model.name to its architecture; set halves.proxy if it is smaller."
        require(same, subject, "another architecture", f"model.name = {self._name!r}", hint)
        facts = given.describe(self._f, encoder)
        facts["files"] = given.content(self._f)
        return described | {"f": facts}

    def check(self) -> None:
        """Compare the hashes of the pretrained model with the manifest; trained models are checked by markers."""
        entries = entries_of(self._folder)
        if entry := entries.get("base"):
            compare_files(self._folder, f"base model {entry['name']}", entry.get("files", {}), self.start.content())
        if self._f is not None and (entry := entries.get("f")):
            compare_files(self._folder, f"model {entry['name']}", entry.get("files", {}), given.content(self._f))

    @property
    def geometries(self) -> list[Geometry]:
        """The geometry of the model."""
        return [self.start.geometry]

    def load(self, side: str, seed: int) -> DualEncoder:
        """Load a model of the run folder, or the pretrained one (side `base`)."""
        if side == BASE:
            return self.start.base()
        if side == "f" and self._f is not None:
            return given.load(self._f)
        if not self._folder.marker(f"train-{side}-seed-{seed}").is_file():
            names = [path.stem.removeprefix("train-") for path in self._folder.marker("").parent.glob("train-*-seed-*")]
            expected = shorten_text(", ".join(sorted(names)), 160) or "a run with trained models"
            raise _no_model(side, seed, expected, "Choose a side and a seed of the run.")
        return given.load_saved(self._folder.model_dir(side, seed))


class GivenModels:
    """Existing models: those of the recipe's `[given]`, or of a manifest."""

    def __init__(self, recipe: Recipe, folder: RunFolder, entries: Entries | None = None) -> None:
        self._known = entries["given"] if entries else None
        names, self._roles = {"target": recipe.given.target, "reference": recipe.given.reference}, recipe.given.roles
        if self._known is not None:  # the roles are in the split table
            names, self._roles = {kind: [entry["address"] for entry in self._known[kind]] for kind in names}, ""
        self._models = {kind: [given.find(name) for name in models] for kind, models in names.items()}
        self._folder = folder

    @cached_property
    def _content(self) -> dict[str, dict[str, str]]:
        every = {model.address: model for models in self._models.values() for model in models}
        return {address: given.content(model) for address, model in every.items()}

    def describe(self) -> dict[str, Given]:
        """Return address, hashes and size of each; loads each once, to find broken models early."""
        if self._known is None:
            facts: dict[str, ModelFacts] = {}
            for model in (model for models in self._models.values() for model in models):
                if model.address not in facts:
                    facts[model.address] = given.describe(model, given.load(model))
            entries: dict[str, list[ModelFacts]] = {
                kind: [{**facts[m.address], "name": m.name, "files": self._content[m.address]} for m in models]
                for kind, models in self._models.items()
            }
            roles = {"name": self._roles, "sha256": file_sha256(Path(self._roles))} if self._roles else None
            self._known = Given(target=entries["target"], reference=entries["reference"], roles=roles)
        return {"given": self._known}

    @property
    def geometries(self) -> list[Geometry]:
        """The geometries of all models."""
        entries = self.describe()["given"]
        keys = ("image_size", "resize_mode", "interpolation")
        return sorted({Geometry(*(entry[key] for key in keys)) for kind in LISTS.values() for entry in entries[kind]})

    def check(self) -> None:
        """Compare the hashes of every model and of the roles file with the manifest."""
        entries = entries_of(self._folder)["given"]
        for kind, models in self._models.items():
            for k, (model, entry) in enumerate(zip(models, entries[kind], strict=True)):
                before, now = entry.get("files", {}), self._content[model.address]
                compare_files(self._folder, f"{kind} {k}, {model.name}", before, now)
        if self._roles:
            now = {self._roles: file_sha256(Path(self._roles))}
            compare_files(self._folder, "roles", {self._roles: (entries["roles"] or {}).get("sha256", "")}, now)
        self._known = entries

    def load(self, side: str, seed: int) -> DualEncoder:
        """Load a target (side `f`) or a reference (side `g`)."""
        models = self._models.get(LISTS.get(side, ""), [])
        if seed not in range(len(models)):
            expected = f"side 'f' (a target) or 'g' (a reference), seed 0 to {len(self._models['target']) - 1}"
            raise _no_model(side, seed, expected, "Use the position in the lists of [given] as seed.")
        return given.load(models[seed])


def compare_files(folder: RunFolder, subject: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Compare the hashes of files, by name, with those in the manifest of a run folder."""
    hint = "Choose another --out DIR, or restore the original files."
    refuse_other(f"run folder {folder.path} was made with other files ({subject})", before, now, hint)


StudyModels = TrainedModels | GivenModels


def entries_of(folder: RunFolder) -> Entries:
    """Return the models in the manifest of a run folder."""
    return cast(Entries, manifest.read(folder))


def open_models(recipe: Recipe, folder: RunFolder, *, started: bool = True, verify: bool = True) -> StudyModels:
    """Return the models of a study: those of its manifest if it is `started`, compared with it to `verify` them."""
    kind = TrainedModels if declared("protocols", recipe.protocol).trains else GivenModels
    models = kind(recipe, folder, entries_of(folder) if started else None)
    if started and verify:
        models.check()
    return models
