"""Checkpoints that run code, lie about their sizes, or are of something else."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.hostile.case import ACCEPTED, REFUSED, TRAP, Case, group
from tests.hostile.tables import images

_MODEL = "clipmem-micro"


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {TRAP}",)


@cache
def _weights() -> bytes:
    import torch
    from safetensors.torch import save

    from clipmem.models.openclip import create

    torch.set_num_threads(1)
    return save({name: value.contiguous() for name, value in create(_MODEL, seed=0).module.state_dict().items()})


def _pickled() -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save({"state_dict": _Bomb()}, stream)
    return stream.getvalue()


def _safetensors(header: object, body: bytes = bytes(64), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _zipped(names: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _file(name: str, data: Callable[[], bytes]) -> Callable[[Path], object]:
    def make(work: Path) -> None:
        _pairs(work)
        (work / name).write_bytes(data())

    return make


def _pairs(work: Path) -> None:
    images(work)
    (work / "pairs.csv").write_text("image,caption\n" + "".join(f"{k}.png,thing {k}\n" for k in range(8)))


def _hub_folder(config: object, weights: bytes = b"") -> Callable[[Path], object]:
    def make(work: Path) -> None:
        _pairs(work)
        (work / "model").mkdir()
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        (work / "model" / "open_clip_config.json").write_bytes(text)
        (work / "model" / "open_clip_model.safetensors").write_bytes(weights)

    return make


def _embed(model: str) -> list[str]:
    return ["export", "embeddings", "--model", model, "--data", "pairs.csv", "--out", "new"]


@group("checkpoints")
def cases(rng: random.Random) -> Iterator[Case]:
    """Files and folders that are given as models."""
    tensor: dict[str, object] = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    far = tensor | {"data_offsets": [0, 2**40]}
    files: dict[str, tuple[str, Callable[[], bytes]]] = {
        "a pickle that runs code": ("m.pt", lambda: pickle.dumps(_Bomb())),
        "torch's zip with a pickle that runs code": ("m.pt", _pickled),
        "a pickle called safetensors": ("m.safetensors", lambda: pickle.dumps(_Bomb())),
        "nothing": ("m.safetensors", bytes),
        "random bytes": ("m.safetensors", lambda: rng.randbytes(4000)),
        "random bytes as .pt": ("m.pt", lambda: rng.randbytes(4000)),
        "a header of 2^60 bytes": ("m.safetensors", lambda: _safetensors({}, length=2**60)),
        "a header that is no JSON": ("m.safetensors", lambda: _safetensors(b"{broken")),
        "a tensor beyond the end": ("m.safetensors", lambda: _safetensors({"a": far})),
        "tensors of other names": ("m.safetensors", lambda: _safetensors({"a": tensor}, bytes(16))),
        "a shape of 2^60": ("m.safetensors", lambda: _safetensors({"a": {**tensor, "shape": [2**60]}})),
        "cut off": ("m.safetensors", lambda: _weights()[:-1000]),
        "of not-a-number": ("m.safetensors", lambda: _weights()[:-4000] + b"\x00\x00\xc0\x7f" * 1000),
        "a zip that is a bomb": ("m.pt", lambda: _zipped({"archive/data.pkl": bytes(2 * 10**8)})),
        "a zip that climbs": ("m.pt", lambda: _zipped({"../../" + TRAP: b"x"})),
        "an HTML page": ("m.pt", lambda: b"<!doctype html><html>404</html>"),
    }  # fmt: skip
    for name, (file, data) in files.items():
        yield Case(name, _embed(f"{_MODEL}@{file}"), _file(file, data), REFUSED)
    yield Case("as it should be", _embed(f"{_MODEL}@m.safetensors"), _file("m.safetensors", _weights), ACCEPTED)
    huge, remote = {"width": 10**9, "layers": 10**6}, {"hf_tokenizer_name": "x/y"}
    configs: dict[str, object] = {
        "no JSON": b"{broken", "a list": [1], "no model": {}, "a model of texts": {"model_cfg": "ViT-B-32"},
        "negative widths": {"model_cfg": {"embed_dim": -1, "vision_cfg": {}, "text_cfg": {}}},
        "a width of 10^9": {"model_cfg": {"embed_dim": 10**9, "vision_cfg": huge, "text_cfg": {}}},
        "a remote tokenizer": {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": remote}},
    }  # fmt: skip
    for name, config in configs.items():
        yield Case(f"a configuration with {name}", _embed("model"), _hub_folder(config), REFUSED)
    for address in ("ViT-B-23", "ViT-B-32/no-such-tag", "transformers:nowhere", "transformers:.", "local-dir:nowhere",
                    "hf-hub:no/such", "@", "/", "a@b@c", "timm:x"):  # fmt: skip
        yield Case(f"model {address!r}", _embed(address), _pairs, REFUSED)
