"""Embed the pairs of Parquet files in NeMo Curator: a stage that gives uid, image embedding and text embedding.

    stages = [ParquetReader("pairs/"), EmbedPairs("ViT-B-32-quickgelu/openai"), ParquetWriter("embeddings/")]
    Pipeline("embeddings", stages=stages).run(RayDataExecutor())

The files have the columns image (bytes, or the struct of `datasets`) and captions (a text or a list), as those of
`clipmem export pairs --to parquet`. Uids and embeddings are those of `clipmem export embeddings`. Rows that are no pair
stay as rows with a `problem`; equal pairs are not merged. Without a GPU, give `resources=Resources(cpus=1.0)`.
Written for nemo-curator 1.4.0 and run with its RayDataExecutor on 12 pairs and a CPU; never run on a GPU, nor by Xenna.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import DocumentBatch

from clipmem.integrations.ray import Embed, Records

COLUMNS = ["uid", "image_embedding", "text_embedding", "problem"]
ROWS = 512  # images in memory at a time


@dataclass
class EmbedPairs(ProcessingStage[DocumentBatch, DocumentBatch]):
    """`Embed` as a stage, with its settings; each worker loads the model once."""

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "clipmem_embed_pairs"
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0, gpus=1.0))

    def inputs(self):
        """Return the attribute and the columns that it reads."""
        return ["data"], ["image", "captions"]

    def outputs(self):
        """Return the attribute and the columns that it writes."""
        return ["data"], ["captions", *COLUMNS]

    def setup(self, worker_metadata=None):  # noqa: ARG002
        """Load the model."""
        self._records, self._embed = Records(), Embed(self.model, **self.settings)

    def process(self, task: DocumentBatch) -> DocumentBatch:
        """Embed the pairs of a task."""
        pairs = task.to_pyarrow().flatten()  # a struct becomes the columns image.bytes and image.path
        rows = pa.concat_tables(self._rows(pairs.slice(start, ROWS)) for start in range(0, len(pairs), ROWS))
        return DocumentBatch(task.dataset_name, rows, _metadata=task._metadata, _stage_perf=task._stage_perf)

    def _rows(self, pairs: pa.Table) -> pa.Table:
        # as samples of a webdataset, which `Records` checks and gives a uid; the bytes tell the format of an image
        image = pairs["image.bytes" if "image.bytes" in pairs.column_names else "image"]
        texts = [json.dumps({"captions": value}).encode() for value in pairs["captions"].to_pylist()]
        samples = pa.table({"__key__": [str(row) for row in range(len(texts))], "png": image, "json": texts})
        return self._embed(self._records(samples)).select(COLUMNS).add_column(0, "captions", pairs["captions"])
