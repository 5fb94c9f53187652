"""Photographs: which captions are mismatched, how well swapped ones are found, and a table of findings to send back.

    python examples/kits/photographs.py coco/annotations/captions_train2017.json --model ViT-B-32-quickgelu/openai
    python examples/kits/photographs.py flickr8k/Flickr8k.token.txt --model transformers:clip-vit-base-patch32

DATA is in any format that clipmem reads (docs/data.md): COCO captions, Karpathy's JSON, Flickr8k or Flickr30k text with
the images near it. MODEL is a model that did not train on these pairs (docs/models.md). The folder --out then has

    list.csv        the suspects: file, captions, probability, reason, a caption that fits better
    curated/        the whole ranking, to review with `clipmem view`; run the kit again, and your marks are counted
    scores.parquet  `clipmem score --model`: a ranking by this one model of how memorized the pairs may be
    findings.json, findings.md  numbers alone, no caption, image or path: please send these back

Nobody knows which captions of your data are mismatched. So the kit also swaps the captions of 5% of a random sample,
ranks that sample, and measures how well the swapped pairs are found. Captions that are swapped at random are easier to
find than most real mistakes. Mistakes that are in the data count as false alarms.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

import clipmem
from clipmem.base.marks import latest_marks
from clipmem.base.paths import write_json
from clipmem.data.sources.base import Wrapped
from clipmem.data.sources.records import Part
from clipmem.data.user_tables import write_ids
from clipmem.functional import auroc, spearman

SEED = 0


class Swapped(Wrapped):
    """A random sample of a source's pairs, some of which have the captions of another one of them."""

    def __init__(self, source, pairs, size, share):
        super().__init__(source, source.section)
        stream = np.random.default_rng(SEED)
        sample = stream.permutation(pairs.height)[:size]
        rows = sample[: max(2, round(share * len(sample)))]
        uids, captions = pairs["uid"].to_list(), pairs["captions"].to_list()
        self.captions = {uids[row]: captions[row] for row in sample}
        self.captions |= {uids[row]: captions[other] for row, other in zip(rows, np.roll(rows, 1), strict=True)}
        self._changed = {uids[row] for row in rows if self.captions[uids[row]] != captions[row]}
        self.uids = set()  # of the swapped pairs, complete once the records were read

    def records(self):
        """Yield the records of the sample."""
        for record in self.source.records():
            uid = record.uid()
            if uid not in self.captions:
                self.ledger.read -= len(record.parts)
                continue
            record.parts = [Part(part.key, self.captions[uid]) for part in record.parts]
            if uid in self._changed:
                self.uids.add(record.uid())
            yield record


def detection(source, model, out):
    """Rank the sample; return AUROC and precision for its swapped pairs, and the expected number beside theirs."""
    table = clipmem.curate(source, model=model, out=out)
    swapped, n = table["uid"].is_in(list(source.uids)).to_numpy(), len(source.uids)
    # probabilities are all 0 where none are found
    scores = {"curate": pl.read_parquet(out / "suspects.parquet")["score"].to_numpy()}
    if "similarity_detector" in table.columns:  # of image and caption, under the model
        scores["similarity"] = table["similarity_detector"].to_numpy()
    document = json.loads((out / "curate.json").read_text(encoding="utf-8"))
    suspects = table["is_label_issue"].to_numpy()
    return {
        "pairs": table.height,
        "swapped": n,
        "auroc": {name: auroc(np.nan_to_num(values), swapped)._asdict() for name, values in scores.items()},
        "precision_at_swapped": float(swapped[:n].mean()),
        "expected": {key: document["expected"][key] for key in ("share", "low", "high")},
        "suspects": int(suspects.sum()),
        "swapped_suspects": int((suspects & swapped).sum()),
    }


def reviewed(out):
    """Return how many pairs of the ranking somebody marked in `clipmem view`, and how many of these as mismatched."""
    decisions = [mark.mark for mark in latest_marks(out / "suspects.parquet").values()]
    wrong, fine = decisions.count("wrong"), decisions.count("fine")
    return {"marked": wrong + fine, "mismatched": wrong}


def findings(source, model, out, *, size, share):
    """Do all of it, and return the findings."""
    pairs = source.pairs()
    facts = source.ledger.facts()
    table = clipmem.curate(source, model=model, out=out / "curated")
    document = json.loads((out / "curated" / "curate.json").read_text(encoding="utf-8"))
    suspects = table.filter("is_label_issue").join(pairs.select("uid", "key", "captions"), on="uid", how="left")
    columns = [
        "uid",
        "key",
        "captions",
        (1 - pl.col("label_score")).alias("probability"),
        "reason",
        "suggested_caption",
    ]
    write_ids(out / "list.csv", suspects.select(*columns))
    scores = clipmem.score(model=model, data=source, out=out / "scores.parquet")
    chosen = json.loads((out / "scores.json").read_text(encoding="utf-8"))["estimator"]
    ranking = pl.read_parquet(out / "curated" / "suspects.parquet").select("uid", suspicion="score")
    both = ranking.join(scores.filter(estimator=chosen), on="uid")
    swapped = Swapped(source, pairs, size, share)
    return {
        "format": 1,
        "data": {"format": source.section.source, **{name: facts[name] for name in ("read", "pairs", "left_out")}},
        "captions_per_pair": float(pairs["captions"].list.len().mean() or 0),
        "model": Path(model).name,
        "curate": {
            "pairs": document["pairs"],
            "expected": {name: document["expected"][name] for name in ("share", "low", "high", "found", "clear")},
            "suspects": suspects.height,
            "kinds": document["kinds"],
            "reviewed": reviewed(out / "curated"),
        },
        "rank_correlation_of_both_scores": spearman(both["score"], both["suspicion"])._asdict(),
        "swapped": {
            "with the model": detection(swapped, model, out / "swapped-model"),
            "pixels and words": detection(swapped, None, out / "swapped"),
        },
        "versions": {"clipmem": clipmem.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "gpu": torch.cuda.is_available(),
    }


def page(document):
    """Return the findings as Markdown."""
    curate, data = document["curate"], document["data"]
    low, middle, high = (f"{curate['expected'][name]:.1%}" for name in ("low", "share", "high"))
    marked = curate["reviewed"]
    lines = [
        f"# {data['pairs']:,} pairs ({data['format']}), {document['model']}, clipmem {document['versions']['clipmem']}",
        "",
        f"{data['left_out']:,} records were skipped. Expected mismatched captions: {middle} [{low}, {high}]. "
        f"Suspects: {curate['suspects']:,}. Reviewed: {marked['marked']}, mismatched: {marked['mismatched']}.",
        "",
        "| swapped captions | ranking | AUROC | precision at n | suspects, of these swapped | expected | swapped |",
        "| --- | --- | --- | ---: | ---: | --- | ---: |",
    ]
    for name, row in document["swapped"].items():
        expected = "{share:.1%} [{low:.1%}, {high:.1%}]".format(**row["expected"])
        for detector, area in row["auroc"].items():
            cells = [name, detector, "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**area), "", "", "", ""]
            if detector == "curate":
                found = f"{row['suspects']:,}, {row['swapped_suspects']:,}"
                cells[3:] = [
                    f"{row['precision_at_swapped']:.2f}",
                    found,
                    expected,
                    f"{row['swapped'] / row['pairs']:.1%}",
                ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    """Read the command line, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="pairs in a format of docs/data.md")
    parser.add_argument(
        "--model", required=True, help="a model that did not train on these pairs, as in docs/models.md"
    )
    parser.add_argument("--out", type=Path, default=Path("photographs"), help="output folder")
    parser.add_argument("--image-root", default="", help="folder of the images, if it is not found near the captions")
    parser.add_argument("--sample", type=int, default=10_000, help="pairs of the sample with swapped captions")
    parser.add_argument("--swap", type=float, default=0.05, help="share of the sample whose captions are swapped")
    options = parser.parse_args(arguments)
    keys = {"image_root": options.image_root} if options.image_root else {}
    try:
        source = clipmem.load_pairs(options.data, **keys)
        document = findings(source, options.model, options.out, size=options.sample, share=options.swap)
    except clipmem.InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    write_json(options.out / "findings.json", document)
    (options.out / "findings.md").write_text(page(document), encoding="utf-8")
    print(page(document))


if __name__ == "__main__":
    main()
