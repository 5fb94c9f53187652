"""Mitigations of the weights: average, interpolation (WiSE-FT), and the controls weight decay and early stopping.

Average (Polyak and Juditsky 1992): θ̄_0 = θ_0, θ̄_k = d θ̄_{k-1} + (1 - d) θ_k after step k. The model written is θ̄. The
average starts at the initial weights, without a correction for this bias: after K steps they have the weight d^K in it.
It includes the running averages of batch norm. An embedding row of a token that no caption has is θ_0 times a factor
known from weight decay, so that its average is θ_0 times the average factor.

Interpolation (Wortsman et al. 2022): θ = (1 - a) θ_base + a θ_tuned, a from 0 to 1. It costs no training: `run` takes
the models of a finished run. When not to trust it: the line between two models that were not trained one from the
other, or far from each other, can cross models that are worse than both.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clipmem.base import manifest
from clipmem.base.errors import require
from clipmem.base.folder import RunFolder, refuse_other
from clipmem.base.hashing import file_sha256, json_sha256
from clipmem.base.mitigations import InterpolateSection
from clipmem.base.recipes import Recipe, flatten
from clipmem.base.sections import TrainSection
from clipmem.mitigate.base import MITIGATIONS, Mitigation, Parent
from clipmem.models.start import Start
from clipmem.train.hooks import Weights

_FACTOR = "factor of unused rows"


@MITIGATIONS.register("average")
class Average(Mitigation):
    """`[mitigate.average]`."""

    summary = "Average the weights over the steps of training."

    def __init__(self, section: object, seed: int = 0) -> None:
        super().__init__(section, seed)
        self._means: dict[str, Tensor] = {}

    def step(self, weights: Weights, decay: float) -> None:
        now = {name: weight.detach() for name, weight in weights}
        now[_FACTOR] = torch.tensor(decay, dtype=torch.float64)
        if not self._means:
            self._means = {name: weight.clone() for name, weight in now.items()}
        for name, mean in self._means.items():
            mean.lerp_(now[name], 1 - self.section.decay)

    def end(self, weights: Weights, decay: float) -> float:  # noqa: ARG002
        for name, weight in weights:
            weight.detach().copy_(self._means[name])
        return float(self._means[_FACTOR])

    def tensors(self) -> dict[str, Tensor]:
        return self._means


# sections that determine the models of a run
_SAME = ("protocol", "data.", "split.", "model.", "train.", "subsample.", "leave_one_out.", "mitigate.")

State = nn.Module | Mapping[str, Tensor]


def interpolate_weights(base: State, tuned: State, alpha: float) -> dict[str, Tensor]:
    """Interpolate between the weights of a model before and after fine-tuning: (1 - alpha) base + alpha tuned.

    With alpha = 1 it has the bytes of `tuned`, with 0 those of `base`, and weights that are equal in both stay as they
    are. Running averages of batch norm are interpolated; counters and other integers are those of `tuned`. In a model
    with LoRA adapters, whose update is s B A, B is multiplied by alpha and A stays: the update is alpha s B A.

    Args:
        base: The model before fine-tuning, or its state dict.
        tuned: The model after it, with the same names and shapes.
        alpha: Weight of `tuned`, from 0 to 1.

    Returns:
        A new state dict, on the devices and in the types of `tuned`.

    Raises:
        InputError: alpha is not in this range, or the two have other parameters; the first of them is named.

    Example:
        >>> interpolate_weights({"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}, 0.25)
        {'w': tensor([1.5000])}
    """
    require(0 <= alpha <= 1, "interpolation alpha", f"{alpha}", "0 to 1", "Set alpha to 1 for the fine-tuned model.")
    a, b = (model.state_dict() if isinstance(model, nn.Module) else model for model in (base, tuned))
    for name in {**a, **b}:
        shapes = [str(tuple(state[name].shape)) if name in state else "none" for state in (b, a)]
        hint = "Use two checkpoints of the same architecture."
        require(shapes[0] == shapes[1], f"parameter {name}", shapes[0], f"{shapes[1]}, as before fine-tuning", hint)
    return {name: _between(name, a[name].detach(), end.detach(), alpha) for name, end in b.items()}


def _between(name: str, start: Tensor, end: Tensor, alpha: float) -> Tensor:
    if alpha == 1 or not end.is_floating_point() or "lora_A" in name:
        return end.clone()
    if "lora_B" in name:
        return alpha * end
    start = start.to(end.device, end.dtype)
    # where they are equal: `lerp` turns -0 into 0, and infinity into NaN
    return start.clone() if alpha == 0 else torch.where(start == end, end, torch.lerp(start, end, alpha))


@MITIGATIONS.register("interpolate")
class Interpolation(Mitigation):
    """`[mitigate.interpolate]`."""

    summary = "Interpolate between the pretrained and the fine-tuned weights."
    parent_until = "embed"  # until then, a missing model is made again

    def __init__(self, section: InterpolateSection, seed: int = 0) -> None:
        super().__init__(section, seed)
        self._base: dict[str, Tensor] = {}

    @classmethod
    def parent(cls, recipe: Recipe) -> Parent | None:
        """Read the run whose models are used, and check that this recipe would train the same."""
        path = cls.section_of(recipe).run
        if not path:
            return None
        folder, subject = RunFolder(path), f"[mitigate.interpolate] run = {path!r}"
        plain = recipe.mitigate.model_copy(update={"interpolate": InterpolateSection()})
        recipes = folder.recipe(), recipe.model_copy(update={"mitigate": plain})
        previous, current = ({k: v for k, v in flatten(study).items() if k.startswith(_SAME)} for study in recipes)
        hint = "Use the recipe of that run, with other [mitigate.interpolate], [embed], [score] or [evaluate] only."
        refuse_other(f"{subject} has other settings", previous, current, hint)
        record, base = manifest.read(folder), Start(recipe.model, recipe.train).content()
        hint = "Restore the original files."
        refuse_other(f"{subject} starts from other files of model.pretrained", record["base"]["files"], base, hint)
        markers = sorted(file.stem for file in (folder.path / "stages").glob("train-*.json"))
        complete = all(map(folder.is_done, ("train", *markers)))
        hint = f"Run it again: clipmem run RECIPE.toml --out {path}."
        require(complete, subject, "a run without all of its models", "a run whose trainings are finished", hint)
        files = [file for marker in markers for file in folder.outputs(marker)[0]]
        hashes = json_sha256({str(file.relative_to(folder.path)): file_sha256(file) for file in files})
        described = {key: record[key] for key in ("recipe_sha256", "data_sha256", "clipmem")}
        described |= {"path": path, "models_sha256": hashes}
        return Parent(path, folder.read("pairs").select("uid"), described, gives="models")

    @classmethod
    def models(cls, recipe: Recipe, side: str, seed: int) -> Path | None:
        run = cls.section_of(recipe).run
        return RunFolder(run).model_dir(side, seed) if run else None

    def begin(self, module: nn.Module) -> None:
        self._base = {name: weight.detach().cpu().clone() for name, weight in module.state_dict().items()}

    def after(self, module: nn.Module) -> None:
        module.load_state_dict(interpolate_weights(self._base, module, self.section.alpha))


@MITIGATIONS.register("weight_decay")
class WeightDecay(Mitigation):
    """`[mitigate.weight_decay]`: decay = factor · train.weight_decay."""

    summary = "Control: more weight decay."

    def settings(self, train: TrainSection) -> TrainSection:
        return train.model_copy(update={"weight_decay": train.weight_decay * self.section.factor})


@MITIGATIONS.register("early_stopping")
class EarlyStopping(Mitigation):
    """`[mitigate.early_stopping]`: round(share · steps) steps, at least one."""

    summary = "Control: the same training, stopped early."

    def last_step(self, steps: int) -> int:
        return max(1, round(self.section.share * steps))
