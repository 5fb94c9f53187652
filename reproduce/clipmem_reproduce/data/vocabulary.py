"""The model of the regime `small-vocabulary`: clipmem-tiny with 1,500 tokens instead of 49,408.

    python -m clipmem_reproduce.data.vocabulary vocabulary.json

The tokens are the bytes, the first 986 merges of CLIP's own byte-pair encoding, and both marks. A word is more tokens,
which it shares with other words. The merges are written beside the file, and the file names them by their whole path.
"""

import gzip
import json
import sys
from pathlib import Path

from open_clip.tokenizer import default_bpe

from clipmem.models.names import model_config

SIZE = 1500
_BYTES, _MARKS = 512, 2  # each byte within a word and at its end; start and end of a text


def write(file: Path) -> None:
    """Write the config of the model, and its merges."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as lines:
        head, *merges = lines.read().split("\n")[: 1 + SIZE - _BYTES - _MARKS]
    tokens = file.resolve().with_suffix(".merges.gz")
    tokens.write_bytes(gzip.compress("\n".join([head, *merges]).encode(), mtime=0))
    config = model_config("clipmem-tiny")
    changes = {"context_length": 64, "vocab_size": SIZE, "tokenizer_kwargs": {"bpe_path": str(tokens)}}
    file.write_text(
        json.dumps({**config, "text_cfg": {**config["text_cfg"], **changes}}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
