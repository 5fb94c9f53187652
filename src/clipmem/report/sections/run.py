"""The setup of a run: roles, recipe, models, machine, time."""

import re
from collections.abc import Mapping
from typing import Any

from clipmem.data.quarantine import left_out_sentence
from clipmem.report.read import RunFiles
from clipmem.report.sections import SECTIONS, Section

_SHOWN_ELSEWHERE = ("seeds", "epochs", "precision")
_WEIGHTS = re.compile(r"\.(safetensors|pt|pth|bin|ckpt)(#ema)?$")
_MACHINE = ("device", "processor", "platform")


@SECTIONS.register("run")
class Run(Section):
    """Roles of the split, models, training, machine, time."""

    nav, order = "What was run", 20

    def data(self, subject: RunFiles) -> dict[str, Any]:
        summary, recipe = subject.summary, subject.recipe
        model = dict(recipe.get("model", {}))
        return {
            "given": _given(subject),
            "fraction": recipe.get("subsample", {}).get("fraction"),
            "model_name": model.pop("name", ""),
            "model": _set(model),
            "epochs": sorted({int(log.epoch.max()) + 1 for log in subject.logs}),
            "steps": sorted({log.step.size for log in subject.logs}),
            "training": _set({k: v for k, v in recipe.get("train", {}).items() if k not in _SHOWN_ELSEWHERE}),
            "machine": [str(subject.manifest[name]) for name in _MACHINE if subject.manifest.get(name)],
            "left_out": left_out_sentence(summary["records"]) if "records" in summary else "",
            "seconds": summary.get("seconds") or {},
        }


def _set(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are not empty."""
    return {key: value for key, value in section.items() if value not in ("", [], {})}


def _given(run: RunFiles) -> dict[str, Any]:
    """Return the given models and their weight files; {} if the study trained its own."""
    given = run.manifest.get("given")
    if not given:
        return {}
    models = [
        {
            "kind": kind,
            "number": number,
            **{key: model[key] for key in ("name", "parameters", "image_size")},
            "weights": [(name, sha[:16]) for name, sha in model["files"].items() if _WEIGHTS.search(name)],
        }
        for kind in ("target", "reference")
        for number, model in enumerate(given[kind])
    ]
    return {"models": models, "roles": given["roles"]}
