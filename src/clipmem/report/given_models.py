"""What a report says of given models: their names, sizes and weights, from the manifest."""

import re
from collections.abc import Mapping
from typing import Any

_WEIGHTS = re.compile(r"\.(safetensors|pt|pth|bin|ckpt)(#ema)?$")


def given_models(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the targets and references as facts with a name and a value.

    Args:
        manifest: The manifest of a run with the protocol `given`.

    Example:
        >>> one = {"name": "a", "parameters": 1200, "image_size": 32, "files": {"m.safetensors": 64 * "a"}}
        >>> given_models({"given": {"target": [one], "reference": [one], "roles": None}})[0]
        ('target 0', 'a: 1,200 parameters, pictures of 32 pixels, m.safetensors aaaaaaaaaaaaaaaa')
    """
    facts: list[tuple[str, str]] = []
    for kind in ("target", "reference"):
        for k, model in enumerate(manifest["given"][kind]):
            weights = [f"{name} {sha[:16]}" for name, sha in model["files"].items() if _WEIGHTS.search(name)]
            parts = [f"{model['parameters']:,} parameters", f"pictures of {model['image_size']} pixels", *weights[:1]]
            parts += [f"and {len(weights) - 1} more weight files"] if len(weights) > 1 else []
            facts.append((f"{kind} {k}", f"{model['name']}: {', '.join(parts)}"))
    roles = manifest["given"]["roles"]
    return [*facts, ("roles", f"{roles['name']}, {roles['sha256'][:16]}" if roles else "drawn: a bank, and candidates")]
