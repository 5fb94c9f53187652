"""DataComp: a list of uids in, the list without suspect captions out, in the format that its resharder takes.

    python examples/kits/datacomp.py metadata/small --arch l14 --subset clip_score.npy --out keep.npy
    python examples/kits/datacomp.py shards/small --model ViT-B-32-quickgelu/openai --out keep.npy
    python resharder.py -i shards/small -o kept -s keep.npy          # DataComp's own

DATA is a folder of metadata that `download_upstream.py --download_npz` wrote: NAME.parquet with `uid` and `text`, and
NAME.npz with the embeddings of OpenAI's models, `b32_img` and `b32_txt`, or `l14_img` and `l14_txt`. Then no image is
read. Or it is a folder of tars, whose JSON has the `uid` that DataComp gave. Then pixels are compared, too, and, with
--model, that model's embeddings. A list is a sorted numpy array of dtype `u8,u8`, as `.npy` or memory-mapped. A uid may
be in it several times, as in DataComp, and stays so often. Without --subset, the list is that of all readable pairs.

Of metadata, pairs are compared within blocks of about --block pairs, each of whole files: time grows like the size of a
block to the power of 1.5. --suspects is for each block. A stopped call starts again at its first unfinished block. The
kit also writes `OUT-suspects.parquet`: uid, the probability that the caption is mismatched, and the reason.
The layouts are those of the stored sources of DataComp; run on stand-ins of a few hundred pairs, never on a pool.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl

import clipmem
from clipmem.base.errors import require
from clipmem.data.user_tables import DATACOMP, datacomp_array


def read_list(path):
    """Read a list of uids, as the resharder does: .npy, or the same numbers without a header."""
    with path.open("rb") as stream:
        headed = stream.read(6) == b"\x93NUMPY"
    listed = np.load(path, allow_pickle=False) if headed else np.fromfile(path, dtype=DATACOMP)
    require(listed.dtype == DATACOMP, f"--subset {path}", f"dtype {listed.dtype}", f"{DATACOMP}", "Give a uid list.")
    return listed


def as_numbers(uids):
    """Return uids of 32 hexadecimal digits as two 64-bit numbers each, in their order."""
    return np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], dtype=DATACOMP)


def blocks(folder, subset, size):
    """Yield the metadata files of a block with their rows that are in the subset; the last block is not small."""
    waiting, count, last = [], 0, None
    for file in sorted(folder.rglob("*.parquet")):
        uids = as_numbers(pl.read_parquet(file, columns=["uid"])["uid"])
        rows = np.arange(len(uids)) if subset is None else np.flatnonzero(np.isin(uids, subset))
        waiting, count = [*waiting, (file, rows)], count + len(rows)
        if count >= size:
            if last:
                yield last
            last, waiting, count = waiting, [], 0
    yield (last or []) + waiting


def store(block, arch, folder):
    """Write the embeddings of a block in the layout that clipmem reads; return their uids."""
    uids = []
    for number, (file, rows) in enumerate(block):
        table = pl.read_parquet(file, columns=["uid", "text"])[rows].rename({"text": "caption"})
        uids += table["uid"].to_list()
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
            for name, key in (("img_emb", "img"), ("text_emb", "txt")):
                (folder / name).mkdir(parents=True, exist_ok=True)
                np.save(folder / name / f"{name}_{number}.npy", arrays[f"{arch}_{key}"][rows], allow_pickle=False)
        (folder / "metadata").mkdir(exist_ok=True)
        table.write_parquet(folder / "metadata" / f"metadata_{number}.parquet")
    return uids


def suspects_of(ranking, names):
    """Return the suspects of a ranking by the uids of DataComp, of which a pair may have several."""
    probability = (1 - pl.col("label_score")).alias("probability")
    table = ranking.filter("is_label_issue").select("uid", probability, "reason")
    return table.with_columns(uid=pl.col("uid").replace_strict(names, return_dtype=pl.List(pl.String))).explode("uid")


def of_metadata(folder, subset, work, options):
    """Rank the pairs of metadata files by the stored embeddings; return all their uids, and the suspects."""
    every, tables = [], []
    for number, block in enumerate(blocks(folder, subset, options.block)):
        place = work / f"block-{number:05d}"
        uids = store(block, options.arch, place / "embeddings")
        how = {"suspects": options.suspects, "out": place / "curated"}
        ranking = clipmem.curate(model=str(place / "embeddings"), **how)
        every += uids
        tables.append(suspects_of(ranking, {uid: [uid] for uid in uids}))
        print(f"block {number}: {len(uids):,} pairs, {tables[-1].height:,} suspects")
    return every, pl.concat(tables)


def of_shards(folder, work, options):
    """Rank the pairs of tars; return the uids that DataComp gave them, and the suspects."""
    names = {}

    def watch(record):
        if record.uid():
            names.setdefault(record.uid(), []).append(record.label)

    source = clipmem.load_pairs(folder, label_column="uid")
    source.pairs(watch)
    ranking = clipmem.curate(source, model=options.model, suspects=options.suspects, out=work)
    return [uid for uids in names.values() for uid in uids], suspects_of(ranking, names)


def main(arguments=None):
    """Read the command line, and write both lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of metadata with .npz files, or of tars")
    parser.add_argument("--out", type=Path, required=True, help="the list without suspects, .npy")
    parser.add_argument("--subset", type=Path, help="a list of uids to start from; by default all")
    parser.add_argument("--arch", default="l14", choices=["b32", "l14"], help="whose embeddings, with metadata")
    parser.add_argument("--model", help="a model or folder of embeddings, with tars")
    parser.add_argument("--suspects", default="", help="how many, as in clipmem curate: 200, or precision=0.7")
    parser.add_argument("--block", type=int, default=500_000, help="pairs that are compared with each other")
    parser.add_argument("--work", type=Path, help="folder of what can be used again; by default OUT.work")
    options = parser.parse_args(arguments)
    work = options.work or options.out.with_suffix(".work")
    try:
        require(options.out.suffix == ".npy", f"--out {options.out}", options.out.suffix, ".npy", "Use that extension.")
        require(options.data.is_dir(), f"{options.data}", "no such folder", "metadata or tars", "Check the path.")
        subset = read_list(options.subset) if options.subset else None
        has_tars = any(options.data.rglob("*.tar"))
        every, suspects = (
            of_shards(options.data, work, options) if has_tars else of_metadata(options.data, subset, work, options)
        )
    except (clipmem.InputError, OSError, KeyError, pl.exceptions.PolarsError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    listed = datacomp_array(every) if subset is None else np.sort(subset)
    # without the suspects; a uid that is listed several times stays so often
    kept = listed[~np.isin(listed, as_numbers(suspects["uid"]))]
    np.save(options.out, kept, allow_pickle=False)
    suspects.sort("probability", descending=True).write_parquet(
        options.out.with_name(f"{options.out.stem}-suspects.parquet")
    )
    print(f"{len(listed):,} uids, {suspects.height:,} suspects; {len(kept):,} uids in {options.out}")


if __name__ == "__main__":
    main()
