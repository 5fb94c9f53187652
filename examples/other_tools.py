"""Scores in the tools that you use: datasets, pandas, webdataset, open_clip's CSV, FiftyOne.

    python examples/other_tools.py RUN --count 50 --out cleaned [--dataset FOLDER | --tars PATTERN | --csv FILE]

Every tool has names of its own for a pair. What all have is the image: the first 16 digits of a uid are its hash.
"""

import argparse
import json
from pathlib import Path

import clipmem
from clipmem.base.hashing import image_part, pair_uid
from clipmem.mitigate import removal_list


class Uids:
    """The uid of an encoded image of a run."""

    def __init__(self, run):
        self._known = {image_part(uid): uid for uid in run.pairs["uid"]}

    def of(self, image):
        """Return the uid of encoded image bytes; None for an image that is not in the run."""
        return self._known.get(image_part(pair_uid(image, [])))


def with_scores(dataset, run, image="image"):
    """Add the columns uid and clipmem to a `datasets.Dataset`; rows outside the run have null."""
    import datasets

    uids, scores = Uids(run), dict(run.scores.select("uid", "clipmem").iter_rows())
    encoded = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    column = [uids.of(row[image]["bytes"] or Path(row[image]["path"]).read_bytes()) for row in encoded]
    return dataset.add_column("uid", column).add_column("clipmem", [scores.get(uid) for uid in column])


def without(dataset, removed):
    """Return a copy of a dataset with the column uid without some pairs."""
    return dataset.filter(lambda uid: uid not in removed, input_columns="uid")


def as_pandas(run):
    """Return scores, roles, captions and keys of all pairs as a pandas table, highest score first."""
    import pandas as pd

    scores, pairs = (pd.read_parquet(run.path / f"{name}.parquet") for name in ("scores", "pairs"))
    joined = scores.merge(pairs[["uid", "key", "captions"]], on="uid", validate="one_to_one")
    return joined.sort_values("clipmem", ascending=False, ignore_index=True)


def tars_without(tars, out, removed, run):
    """Write webdataset tars (img2dataset's, open_clip's) without some pairs; return how many samples were kept."""
    import webdataset

    uids, kept = Uids(run), 0
    out.mkdir(parents=True)
    for tar in tars:
        with webdataset.TarWriter(str(out / Path(tar).name)) as writer:
            for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
                images = [sample[ending] for ending in ("jpg", "jpeg", "png", "webp") if ending in sample]
                if not removed & {uids.of(image) for image in images}:
                    writer.write({key: value for key, value in sample.items() if not key.startswith("__local")})
                    kept += 1
    return kept


def csv_without(table, out, removed, run, *, image="filepath", root=None, separator="\t"):
    """Write open_clip's CSV (`--csv-img-key filepath`) without some pairs; return how many rows were kept."""
    import pandas as pd

    uids, rows = Uids(run), pd.read_csv(table, sep=separator)
    folder = Path(table).parent if root is None else Path(root)
    kept = rows[[uids.of((folder / name).read_bytes()) not in removed for name in rows[image]]]
    kept.to_csv(out, sep=separator, index=False)
    return len(kept)


def fiftyone_samples(run, out):
    """Write the fields of FiftyOne's samples as JSON, for pairs whose image is a file: no database is needed here.

    There: `dataset.add_samples([fiftyone.Sample(**one) for one in json.load(open("samples.json"))["samples"]])`.
    """
    rows = run.scores.join(run.pairs.select("uid", "image", "captions"), on="uid").to_dicts()
    samples = [
        {
            "filepath": row["image"],
            "tags": [row["role"]],
            "uid": row["uid"],
            "clipmem": row["clipmem"],
            "captions": row["captions"],
        }
        for row in rows
        if row["clipmem"] is not None
    ]
    Path(out).write_text(json.dumps({"samples": samples}), encoding="utf-8")
    return len(samples)


def main(arguments=None):
    """Remove the most memorized pairs from a copy of the data that a run was made of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--tars", nargs="*")
    parser.add_argument("--csv")
    given = parser.parse_args(arguments)
    run = clipmem.load_run(given.run)
    removed = set(removal_list(given.run, count=given.count))
    if given.dataset:
        import datasets

        cleaned = without(with_scores(datasets.load_from_disk(given.dataset), run), removed)
        cleaned.save_to_disk(given.out)
        print(f"{len(cleaned)} rows in {given.out}")
    elif given.tars:
        print(f"{tars_without(given.tars, given.out, removed, run)} samples in {given.out}")
    elif given.csv:
        print(f"{csv_without(given.csv, given.out, removed, run)} rows in {given.out}")
    else:
        print(as_pandas(run).head(10).to_string())


if __name__ == "__main__":
    main()
