"""Steps for Ray Data: pairs in a webdataset, and their embeddings, as classes for `map_batches`.

    pairs = ray.data.read_webdataset(shards, decoder=None).map_batches(Records, batch_format="pyarrow")
    embedded = pairs.map_batches(Embed, fn_constructor_kwargs={"model": "ViT-B-32-quickgelu/openai"},
                                 batch_format="pyarrow", batch_size=512, num_gpus=1, compute=ActorPoolStrategy(size=8))

Each takes and returns an Arrow table and imports no Ray, so other engines can call them, too. Records that are no pair
stay as rows with a `problem`. Equal pairs are not merged, as this takes all rows: do it by `uid`.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from clipmem.base.errors import require
from clipmem.data.decoding import DecodeError, decode
from clipmem.data.pairs import Pairs
from clipmem.data.sources import data_section
from clipmem.data.sources.path_probe import IMAGE_ENDINGS
from clipmem.data.sources.records import NO_CAPTION, NO_IMAGE, Part, Record, caption_problem, examine
from clipmem.data.sources.webdataset import texts_of
from clipmem.models.embeddings import NO_DIRECTION
from clipmem.models.passes import unit_means
from clipmem.study.score_inputs import Settings

__all__ = ["Embed", "Records"]

_TEXTS = {name: pa.string() for name in ("uid", "key", "problem")}
_SCHEMA = pa.schema({**_TEXTS, "captions": pa.list_(pa.string()), "image": pa.binary()})


class Records:
    """Turn samples of a webdataset, as bytes, into pairs with the uids that clipmem gives them.

    Args:
        keys: Keys of `[data]`, such as `caption_column`.

    Returns (when called with a table of samples):
        A table with a row per sample: uid, key, captions, image (encoded) and problem ("" for a pair).

    Raises:
        InputError: A key is unknown, or the samples have no keys.

    Example:
        >>> samples = pa.table({"__key__": ["7"], "png": [b"no image"], "txt": [b"a cat"]})
        >>> Records()(samples)["problem"].to_pylist()
        ['not an image of a known format']
    """

    def __init__(self, **keys: Any) -> None:
        self._section = data_section({"source": "webdataset"}, keys)

    def __call__(self, batch: Any) -> Any:
        """Return the pairs of a table of samples."""
        hint = 'Read them with ray.data.read_webdataset(..., decoder=None) and batch_format="pyarrow".'
        got = f"the columns {', '.join(batch.column_names)}"
        require("__key__" in batch.column_names, "samples", got, "__key__, an image and texts", hint)
        return pa.Table.from_pylist([self._pair(sample) for sample in batch.to_pylist()], _SCHEMA)

    def _pair(self, sample: dict[str, Any]) -> dict[str, object]:
        key, data = str(sample["__key__"]), {name.lower(): value for name, value in sample.items() if value is not None}
        image = next((data[name[1:]] for name in IMAGE_ENDINGS if name[1:] in data), None)
        texts = texts_of({name: data[name] for name in ("txt", "json") if name in data}, self._section)
        record = Record("", key, key, examine(image), [Part(key, texts.captions)])
        captions = [str(caption) for caption in dict.fromkeys(texts.captions) if not caption_problem(caption)]
        uid, reason = record.uid(), record.image if isinstance(record.image, str) else ""
        why = next(map(caption_problem, texts.captions), "") or NO_CAPTION
        problem = "" if uid else (NO_IMAGE if image is None else reason) or why
        return {"uid": uid, "key": key, "problem": problem, "captions": captions, "image": image if uid else None}


class Embed:
    """Embed pairs of `Records` with one model, which is loaded once per actor.

    Args:
        model: Name or folder of a model (docs/models.md).
        settings: As those of `clipmem.score`: `views`, `precision`, `batch_size`, `device`.

    Returns (when called with a table of pairs):
        Its table without the images, and `image_embedding` and `text_embedding`: the means of the unit embeddings of
        views and captions, float32; null for rows with a problem.

    Raises:
        InputError: There is no such model, or a setting is unknown.
    """

    def __init__(self, model: str, **settings: Any) -> None:
        self._model = Settings.of(**settings).model(model)

    def __call__(self, batch: Any) -> Any:
        """Return the embeddings of a table of pairs."""
        geometry, problems = self._model.geometry, batch["problem"].to_pylist()
        pixels, rows = list[np.ndarray](), list[int]()
        for row, (key, image) in enumerate(zip(batch["key"].to_pylist(), batch["image"].to_pylist(), strict=True)):
            if problems[row]:
                continue
            try:
                pixels.append(decode(image, name=f"image {key!r}", **geometry._asdict()))
                rows.append(row)
            except DecodeError as error:
                problems[row] = error.reason
        columns: dict[str, list[list[float] | None]] = {name: [None] * len(problems) for name in ("image", "text")}
        if rows:
            table = pl.DataFrame(batch.select(["uid", "key", "captions"]).take(rows))
            vectors = self._model.embed(Pairs("batch", table, pixels={geometry: np.stack(pixels)}))
            means = unit_means(vectors.image, vectors.text, vectors.text_pair)
            for row, ok, image, text in zip(rows, means.ok, means.image.tolist(), means.text.tolist(), strict=True):
                problems[row] = "" if ok else NO_DIRECTION
                columns["image"][row], columns["text"][row] = (image, text) if ok else (None, None)
        result = batch.drop_columns(["image", "problem"])
        for name, values in columns.items():
            result = result.append_column(f"{name}_embedding", pa.array(values, pa.list_(pa.float32())))
        return result.append_column("problem", pa.array(problems, pa.string()))
