"""Embed the pairs of Parquet files in Daft: a table with uid, image embedding and text embedding.

    pip install daft   # 0.7 needs pyarrow below 26, 0.6.14 does not; DO_NOT_TRACK=1 stops its telemetry
    python examples/daft_embeddings.py 's3://bucket/pairs/*.parquet' --model ViT-B-32-quickgelu/openai --out embeddings/

The files have the columns image (bytes, or the struct of `datasets`) and captions (a text or a list), as those of
`clipmem export pairs --to parquet`. Uids and embeddings are those of `clipmem export embeddings`. Rows that are no pair
stay as rows with a `problem`; equal pairs are not merged. For a Ray cluster, call `daft.set_runner_ray()` first.
"""

import argparse
import json

import daft
import pyarrow as pa
from daft import DataType

from clipmem.integrations.ray import Embed, Records

VECTOR, TEXT = DataType.list(DataType.float32()), DataType.string()
COLUMNS = {"uid": TEXT, "image_embedding": VECTOR, "text_embedding": VECTOR, "problem": TEXT}


class EmbedColumns:
    """`Embed` for columns of Daft; each process loads the model once."""

    def __init__(self, model, **settings):
        self._records, self._embed = Records(), Embed(model, **settings)

    @daft.method.batch(return_dtype=DataType.struct(COLUMNS), unnest=True, batch_size=512)
    def rows(self, image: daft.Series, captions: daft.Series):
        """Return uid, embeddings and problem of each row."""
        # as samples of a webdataset, which `Records` checks and gives a uid; the bytes tell the format of an image
        texts = [json.dumps({"captions": value}).encode() for value in captions.to_pylist()]
        keys = [str(row) for row in range(len(texts))]
        samples = pa.table({"__key__": keys, "png": image.to_arrow(), "json": texts})
        return self._embed(self._records(samples)).select(list(COLUMNS)).to_struct_array().combine_chunks()


def embedded(pairs, model, *, processes=1, gpus=0, **settings):
    """Return captions, uids and embeddings of a DataFrame of pairs; `gpus` are per process."""
    is_struct = pairs.schema()["image"].dtype.is_struct()
    # a process each: the threads of one would share a model
    embed = daft.cls(EmbedColumns, use_process=True, max_concurrency=processes, gpus=gpus)(model, **settings)
    image = pairs["image"]["bytes"] if is_struct else pairs["image"]
    return pairs.select("captions", embed.rows(image, pairs["captions"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Embed the pairs of Parquet files.")
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    options = parser.parse_args()
    table = embedded(daft.read_parquet(options.data), options.model, processes=options.processes, gpus=options.gpus)
    table.write_parquet(options.out)
