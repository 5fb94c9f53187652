# /// script
# requires-python = ">=3.11"
# dependencies = ["clipmem", "datasets>=3.0"]
#
# [tool.uv.sources]
# clipmem = { path = "../.." }  # nothing is published: the checkout that this file is in
# ///
"""Find the mismatched captions of a data set of the Hugging Face hub, and write the data set without them.

    uv run examples/hub/clean_dataset.py OWNER/NAME --out cleaned [--split train] [--caption text]

DATA is a name on the hub, a folder of `save_to_disk`, or a Parquet file or a folder of them. Writes two things into the
new folder OUT. `data/`: the rows that stay, in the layout of the hub, for `datasets.load_dataset(OUT)` and `hf upload`.
`suspects.parquet`: the rows that do not, most suspect first, with their number in the data set, uid, captions, the
probability that the caption is mismatched, the reason, and a caption that fits better, if there is one.

Without --model, pixels and words alone are compared, which was tested on drawings and clip art only. For photographs,
give a model that did not train on these pairs (docs/models.md), and look at the suspects before you use the data.
"""

import argparse
import sys
from pathlib import Path

import datasets
import polars as pl

import clipmem


def open_dataset(data, split):
    """Open a data set by its name or path; a split must be named if there are several."""
    path = Path(data)
    if path.suffix == ".parquet" or (path.is_dir() and [*path.glob("*.parquet")]):
        files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
        return datasets.Dataset.from_parquet([str(file) for file in files])
    opened = datasets.load_from_disk(data) if path.is_dir() else datasets.load_dataset(data, split=split or None)
    if not isinstance(opened, datasets.DatasetDict):
        return opened
    name = split or next(iter(opened), "")
    if name not in opened or (len(opened) > 1 and not split):
        got, expected = split or "no split", f"one of {sorted(opened)}"
        raise clipmem.InputError("--split", got=got, expected=expected, hint="Add --split NAME.")
    return opened[name]


def clean(dataset, *, model=None, suspects="", **columns):
    """Return the rows that stay, and a table of the suspects, most suspect first."""
    pairs = clipmem.load_pairs(dataset, **columns)
    # a record's key is the number of its row
    rows = pairs.pairs().select("uid", pl.col("key").cast(pl.Int64).alias("row"), "captions")
    ranking = clipmem.curate(pairs, model=model, suspects=suspects)
    table = ranking.filter("is_label_issue").join(rows, on="uid", how="left", maintain_order="left")
    probability = (1 - pl.col("label_score")).alias("probability")
    table = table.select("row", "uid", "captions", probability, "reason", "suggested_caption")
    # rows with the same image and captions as a suspect go with it
    return clipmem.clean(dataset, ranking, **columns), table


def main(arguments=None):
    """Read the command line, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="name on the hub, folder of save_to_disk, or Parquet")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--split", default="", help="split to clean; needed if there are several")
    parser.add_argument("--image", default="", help="column of images, if its name is not a usual one")
    parser.add_argument("--caption", default="", help="column of captions (texts or lists of texts), likewise")
    parser.add_argument("--model", help="model that did not train on these pairs, or its embeddings")
    parser.add_argument("--suspects", default="", help="how many, as in clipmem curate: 200, or precision=0.7")
    options = parser.parse_args(arguments)
    columns = {"image_column": options.image, "caption_column": options.caption}
    columns = {key: name for key, name in columns.items() if name}
    if options.out.exists():
        parser.error(f"--out {options.out}: got an existing path, expected a new folder")
    try:
        dataset = open_dataset(options.data, options.split)
        cleaned, table = clean(dataset, model=options.model, suspects=options.suspects, **columns)
    except (clipmem.InputError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    (options.out / "data").mkdir(parents=True)
    cleaned.to_parquet(options.out / "data" / f"{options.split.partition('[')[0] or 'train'}-00000-of-00001.parquet")
    table.write_parquet(options.out / "suspects.parquet")
    print(f"{len(dataset):,} rows, {table.height:,} suspects; {len(cleaned):,} rows in {options.out / 'data'}")


if __name__ == "__main__":
    main()
