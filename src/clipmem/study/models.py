"""The models of a study: trained ones in its run folder, given ones at their addresses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from clipmem.base.declared import declared
from clipmem.base.errors import InputError, require, shorten, shorten_text
from clipmem.base.folder import RunFolder
from clipmem.base.hashing import file_sha256
from clipmem.base.recipes import Recipe
from clipmem.data.decoding import Geometry
from clipmem.models import given
from clipmem.models.names import model_config
from clipmem.models.protocol import DualEncoder, geometry_of
from clipmem.models.start import Start

LISTS = {"f": "target", "g": "reference"}
BASE = "base"  # side of the pretrained model that f and g start from


def _no_model(side: str, seed: int, expected: str, hint: str) -> InputError:
    what = f"model {shorten(side)}, seed {shorten(seed)}"
    return InputError(what, got="no such model in this run", expected=expected, hint=hint)


class StudyModels(ABC):
    """The models of a study."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return their entries in the manifest."""

    @property
    @abstractmethod
    def geometries(self) -> list[Geometry]:
        """The unique image geometries, smallest first."""

    @abstractmethod
    def check(self, manifest: Mapping[str, Any]) -> None:
        """Check that they are the models in a manifest."""

    @abstractmethod
    def load(self, side: str, seed: int) -> DualEncoder:
        """Load the model of a side and seed."""


class TrainedModels(StudyModels):
    """Models that the study trains."""

    def __init__(self, recipe: Recipe, folder: RunFolder, manifest: Mapping[str, Any] | None = None) -> None:
        self.start, self._folder = Start(recipe.model, recipe.train, (manifest or {}).get("base")), folder
        self._name, address = recipe.model.name, recipe.halves.model
        self._f = given.find(address) if address else None  # an existing one, of the protocol halves

    def describe(self) -> dict[str, Any]:
        """Check what training starts from; return the pretrained model's address, hashes and size, if there is one."""
        described = self.start.describe()
        if self._f is None:
            return described
        encoder, what = given.load(self._f), f"[halves] model = {shorten(self._f.name)}"
        config, own = getattr(encoder, "config", None), self.start.geometry
        got, expected = f"images of {geometry_of(encoder)}", f"those of the half-models: {own}"
        require(geometry_of(encoder) == own, what, got, expected, "Set model.name to its architecture.")
        same = config is None or not self._name or config == model_config(self._name)
        expected, hint = (
            f"model.name = {self._name!r}",
            "Set model.name to its architecture; set halves.proxy if it is smaller.",
        )
        require(same, what, "another architecture", expected, hint)
        return described | {"f": {**given.describe(self._f, encoder), "files": given.content(self._f)}}

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Compare the hashes of the pretrained model with a manifest; trained models are checked by markers."""
        if known := manifest.get("base"):
            compare_files(self._folder, f"base model {known['name']}", known["files"], self.start.content())
        if self._f is not None and (known := manifest.get("f")):
            compare_files(self._folder, f"model {known['name']}", known["files"], given.content(self._f))

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
            known = [path.stem.removeprefix("train-") for path in self._folder.marker("").parent.glob("train-*-seed-*")]
            expected = shorten_text(", ".join(sorted(known)), 160) or "a run with trained models"
            raise _no_model(side, seed, expected, "Choose a side and a seed of the run.")
        return given.load_saved(self._folder.model_dir(side, seed))


class GivenModels(StudyModels):
    """Existing models."""

    def __init__(
        self, names: Mapping[str, list[str]], roles: str, folder: RunFolder, known: Mapping[str, Any] | None = None
    ) -> None:
        self._models = {kind: [given.find(name) for name in names[kind]] for kind in LISTS.values()}
        self._roles, self._folder = roles, folder
        self._known = known

    @cached_property
    def _content(self) -> dict[str, dict[str, str]]:
        every = {model.address: model for models in self._models.values() for model in models}
        return {address: given.content(model) for address, model in every.items()}

    def describe(self) -> dict[str, Any]:
        """Return address, hashes and size of each; loads each once, to find broken models early."""
        self._known = self._known or self._inspect()
        return {"given": self._known}

    def _inspect(self) -> dict[str, Any]:
        facts: dict[str, dict[str, Any]] = {}
        for model in (model for models in self._models.values() for model in models):
            if model.address not in facts:
                facts[model.address] = given.describe(model, given.load(model))
        files = self._content
        entries = {
            kind: [{**facts[m.address], "name": m.name, "files": files[m.address]} for m in models]
            for kind, models in self._models.items()
        }
        return {**entries, "roles": self._roles_content()}

    def _roles_content(self) -> dict[str, str] | None:
        return {"name": self._roles, "sha256": file_sha256(Path(self._roles))} if self._roles else None

    @property
    def geometries(self) -> list[Geometry]:
        """The geometries of all models."""
        known = self.describe()["given"]
        return sorted({_geometry(entry) for kind in LISTS.values() for entry in known[kind]})

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Compare the hashes of every model and of the roles file with a manifest."""
        known = manifest["given"]
        for kind, models in self._models.items():
            for k, (model, entry) in enumerate(zip(models, known[kind], strict=True)):
                compare_files(self._folder, f"{kind} {k}, {model.name}", entry["files"], self._content[model.address])
        if self._roles:
            now = self._roles_content() or {}
            there = {self._roles: known["roles"]["sha256"]}
            compare_files(self._folder, "roles", there, {self._roles: now["sha256"]})
        self._known = known

    def load(self, side: str, seed: int) -> DualEncoder:
        """Load a target (side `f`) or a reference (side `g`)."""
        models = self._models.get(LISTS.get(side, ""), [])
        if seed not in range(len(models)):
            expected = f"side 'f' (a target) or 'g' (a reference), seed 0 to {len(self._models['target']) - 1}"
            raise _no_model(side, seed, expected, "Use the position in the lists of [given] as seed.")
        return given.load(models[seed])


def compare_files(folder: RunFolder, what: str, there: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Compare the hashes of files, by name, with those in the manifest of a run folder."""
    for name in sorted({*there, *now}):
        if there.get(name) != now.get(name):
            shown = [side.get(name, "")[:16] or "none" for side in (there, now)]
            what = f"run folder {folder.path} was made with other files ({what})"
            hint = "Choose another --out DIR, or restore the original files."
            raise InputError(what, got=f"{name} with SHA-256 {shown[0]} there, {shown[1]} now", hint=hint)


def _geometry(entry: Mapping[str, Any]) -> Geometry:
    # manifests of earlier versions have the size only
    return Geometry(entry["image_size"], entry.get("resize_mode", "shortest"), entry.get("interpolation", "bicubic"))


def open_models(
    recipe: Recipe, folder: RunFolder, manifest: Mapping[str, Any] | None = None, *, verify: bool = True
) -> StudyModels:
    """Return the models of a study."""
    if declared("protocols", recipe.protocol).trains:
        models = TrainedModels(recipe, folder, manifest)
        if manifest is not None and verify:
            models.check(manifest)
        return models
    section = recipe.given
    if manifest is None:
        return GivenModels({"target": [*section.target], "reference": [*section.reference]}, section.roles, folder)
    known = manifest["given"]
    addresses = {kind: [entry["address"] for entry in known[kind]] for kind in LISTS.values()}
    models = GivenModels(addresses, "", folder, known)
    if verify:
        models.check(manifest)
    return models
