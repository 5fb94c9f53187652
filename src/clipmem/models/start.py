"""What training starts from: random weights of an architecture, or a pretrained model.

f and g of a seed start from the same weights. From scratch these depend on the seed; a pretrained model is the same for
all seeds, which then differ in the order of pairs, views and new layers (adapters) only.
"""

from functools import cached_property
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clipmem import models
from clipmem.base.errors import InputError, require
from clipmem.base.sections import ModelSection, TrainSection
from clipmem.data.decoding import Geometry
from clipmem.models import adapters, given, names, parts
from clipmem.models.parts import Part
from clipmem.models.protocol import DualEncoder, TrainableEncoder, embedding_width


class PartRow(TypedDict):
    """A part of a model: its name, parameters, trained parameters, and their names."""

    part: str
    parameters: int
    trained: int
    names: list[str]


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Start:
    """The start of a study's trainings.

    Args:
        model: The recipe's `[model]`.
        train: The recipe's `[train]`: what of the model is trained.
        base: The entry `base` of a manifest, whose facts need not be determined again.
    """

    def __init__(self, model: ModelSection, train: TrainSection, base: given.ModelFacts | None = None) -> None:
        self._model, self.train = model, train
        self._base: given.ModelFacts | None = base

    @property
    def name(self) -> str:
        """Name for messages: the architecture, or the address of the pretrained model."""
        return self._model.pretrained or self._model.name

    @cached_property
    def _given(self) -> given.GivenModel:
        return given.find(self._base["address"] if self._base else self._model.pretrained)

    def describe(self) -> dict[str, given.ModelFacts]:
        """Check the model and what `[train]` trains of it; return the manifest's entry: {} from scratch."""
        if not self._model.pretrained:
            models.openclip.check(self._model.name)
            if self.train.freeze:
                freeze(self.outline(), self.train)
            return {}
        encoder, name = given.load(self._given), self._model.name
        same = not name or getattr(encoder, "config", None) == names.model_config(name)
        got, hint = f"another architecture in pretrained = {self._model.pretrained!r}", "Set model.name to ''."
        require(same, f"[model] name = {name!r}", got, "the same architecture, or ''", hint)
        facts, width = given.describe(self._given, encoder), embedding_width(encoder)
        self._base = {**facts, "width": width, "files": given.content(self._given)}
        freeze(self._adapted(encoder, 0), self.train)
        return {"base": self._base}

    def content(self) -> dict[str, str]:
        """Hash the files of the pretrained model."""
        return given.content(self._given)

    @property
    def geometry(self) -> Geometry:
        """The image geometry."""
        if not self._model.pretrained:
            return models.openclip.geometry_of_config(self._model.name)
        facts = self._facts
        return Geometry(facts["image_size"], facts["resize_mode"], facts["interpolation"])

    @property
    def width(self) -> int:
        """The width d of the embeddings."""
        if not self._model.pretrained:
            return int(names.model_config(self._model.name)["embed_dim"])
        return int(self._facts.get("width", 0))

    @property
    def _facts(self) -> given.ModelFacts:
        return self._base or self.describe()["base"]

    def create(self, seed: int) -> TrainableEncoder:
        """Create the model with its weights before training."""
        name, pretrained = self._model.name, self._model.pretrained
        return self._adapted(self.base() if pretrained else models.openclip.create(name, seed=seed), seed)

    def trained(self, folder: Path, seed: int) -> TrainableEncoder:
        """Load a model that was trained from this start; adapters stay separate."""
        if not adapters.is_saved(folder):
            return cast(TrainableEncoder, given.load_saved(folder))
        encoder = self.create(seed)
        adapters.restore(encoder, folder)
        return encoder

    def base(self) -> DualEncoder:
        """Load the pretrained model, without adapters."""
        return given.load(self._given)

    def _adapted(self, encoder: DualEncoder, seed: int) -> TrainableEncoder:
        encoder = cast(TrainableEncoder, encoder)
        if self.train.adapter == "lora":
            facts = self._facts if self._model.pretrained else None
            base = facts and adapters.Base(address=facts["address"], files=facts.get("files", {}))
            adapters.add(encoder, self.train.lora, seed=seed, base=base)
        return encoder

    def outline(self) -> TrainableEncoder:
        """Return the model without weights, on torch's device `meta`."""
        if not self._model.pretrained:
            return self._adapted(models.openclip.outline(self._model.name), 0)
        encoder = self.create(0)
        encoder.module.to("meta")
        return encoder

    def operations(self) -> float:
        """Count the operations of a pair's forward pass with a full-length caption, without computing anything."""
        encoder, side = self.outline(), self.geometry.size
        with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
            encoder.encode_image(torch.zeros(1, 3, side, side))
            encoder.encode_text(torch.zeros(1, encoder.context, dtype=torch.long))
        return float(counter.get_total_flops())


def parts_of(encoder: TrainableEncoder) -> dict[str, Part]:
    """Return the part of each parameter, in model order."""
    return {
        name: parts.part_of(name, image=encoder.is_image_parameter(name))
        for name, _ in encoder.module.named_parameters()
    }


def freeze(encoder: TrainableEncoder, settings: TrainSection) -> None:
    """Exclude the parts of `train.freeze` from training, and check that something of a tower is left."""
    weights, of = dict(encoder.module.named_parameters()), parts_of(encoder)
    for name in parts.chosen(of, settings.freeze, "[train] freeze"):
        weights[name].requires_grad = False
    if not any(weight.requires_grad and of[name].tower for name, weight in weights.items()):
        got, hint = f"{list(settings.freeze)}, which leaves nothing of either tower", "Omit one of them."
        raise InputError("[train] freeze", got=got, expected="parts, not all of the model", hint=hint)
    # averages of batch norm are not trained either
    for module in encoder.module.modules():
        parameters = list(module.parameters(recurse=False))
        if isinstance(module, NORMS) and parameters and not any(p.requires_grad for p in parameters):
            module.eval()


def table_of_parts(encoder: TrainableEncoder) -> list[PartRow]:
    """Return one row per part, from input to output."""
    rows, of = dict[Part, PartRow](), parts_of(encoder)
    for name, weight in encoder.module.named_parameters():
        row = rows.setdefault(of[name], {"part": str(of[name]), "parameters": 0, "trained": 0, "names": []})
        row["parameters"] += weight.numel()
        row["trained"] += weight.numel() if weight.requires_grad else 0
        row["names"].append(name)
    return [rows[part] for part in sorted(rows, key=parts.place)]
