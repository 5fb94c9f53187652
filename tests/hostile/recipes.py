"""Recipes that are no TOML, and values that no key takes."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from clipmem.base.recipes import Recipe, flatten
from tests.hostile.case import Case, group

_DOCUMENTS: dict[str, bytes] = {
    "empty brackets": b"[",
    "binary": bytes(range(256)) * 20,
    "UTF-16": "protocol = 'four-way'\n".encode("utf-16"),
    "Latin-1": "[data]\npath = 'h\xe9'\n".encode("latin-1"),
    "deep nesting": b"a = " + b"[" * 5000 + b"]" * 5000,
    "deep tables": b"[" + b".".join([b"a"] * 5000) + b"]\n",
    "a key twice": b"[train]\nepochs = 1\nepochs = 2\n",
    "a table twice": b"[train]\n[train]\n",
    "an unknown table": b"[trian]\nepochs = 1\n",
    "an unknown key": b"[train]\nepoch = 1\n",
    "a value for a table": b"train = 3\n",
    "a list of tables": b"[[train]]\nepochs = 1\n",
    "JSON": b'{"train": {"epochs": 3}}',
    "YAML": b"train:\n  epochs: 3\n",
    "a Python script": b"import os\nos.system('touch code-of-the-input-ran')\n",
    "control characters": b"protocol = 'four-\x1b[2Jway'\n",
    "an escape in a key": b'"\\u001b]0;title\\u0007" = 1\n',
    "a key of a megabyte": b"k" * 2**20 + b" = 1\n",
    "a value of a megabyte": b"[data]\nsource = '" + b"v" * 2**20 + b"'\n",
    "a million keys": b"".join(b"k%d = 1\n" % k for k in range(100_000)),
    "NUL": b"[data]\npath = '\x00'\n",
    "NUL, escaped": b'[data]\npath = "a\\u0000b"\n',
    "a number of 5,000 digits": b"[train]\nepochs = " + b"9" * 5000 + b"\n",
    "dates": b"[train]\nepochs = 2026-01-01\n",
    "infinity": b"[train]\nlr = inf\n",
    "not a number": b"[train]\nlr = nan\n",
}
_ABSURD = [
    "train.epochs=1" + "0" * 26, "train.batch_size=1000000000000", "subsample.models=1000000000",
    "embed.views=1000000000", "score.draws=1000000000000", "localize.views=1000000000", "train.lr=1e300",
    "train.seeds=[0,0]", "train.seeds=[]", "split.external=1", "split.candidate=0", "split.planted=1",
    "split.shared=1000000000", "train.crop_scale=[0.9,0.1]", "train.crop_scale=[0,0]", "model.name=vit-b-23",
    "model.name=../../etc/passwd", "protocol=five-way", "train.objective=supervized", "score.alignment=clp",
    "data.source=emojis", "data.split=trian", "train.objective=supervised", "mitigate.text_noise.std=-1",
    "mitigate.text_noise.std=1e30", "score.confidence=1", "score.confidence=0", "=", "train", "train.", ".epochs=1",
    "train.epochs", "train.epochs.more=1", "a.b.c.d.e.f=1", "train.epochs=\x1b[2J", "train=3", "protocol.x=1",
]  # fmt: skip


def _write(text: bytes) -> Callable[[Path], object]:
    return lambda work: (work / "study.toml").write_bytes(text)


@group("recipes")
def cases(rng: random.Random) -> Iterator[Case]:
    """Documents, settings that are absurd, and keys drawn at random with a value of another type."""
    for name, text in _DOCUMENTS.items():
        yield Case(f"a recipe that is {name}", ["run", "study.toml", "--out", "new"], _write(text))
    for setting in _ABSURD:
        yield Case(f"--set {setting[:40]!r}", ["run", "quick", "--out", "new", "--set", setting])
    # values that are wrong for keys of every type
    for key in rng.sample([key for key in flatten(Recipe()) if not key.startswith("given")], 30):
        value = rng.choice(["{}", "[[[]]]", "1979-05-27", "[{}]"])
        yield Case(f"--set {key}={value}", ["run", "quick", "--out", "new", "--set", f"{key}={value}"])
