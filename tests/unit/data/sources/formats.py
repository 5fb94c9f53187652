"""The same pairs written in every format, by the formats' own conventions and not by the code under test."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from tests.tiny import encoded_image

Pairs = list[tuple[str, bytes, list[str]]]


def some_pairs(n: int = 6, captions: int = 2) -> Pairs:
    """Names, PNG bytes and captions."""
    return [
        (f"{k:04d}.png", encoded_image(k), [f"thing number {k}, seen {time} times" for time in range(captions)])
        for k in range(n)
    ]


def write_images(folder: Path, pairs: Pairs) -> None:
    for name, data, _ in pairs:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def imagefolder_csv(folder: Path, pairs: Pairs) -> Path:
    write_images(folder, pairs)
    write_csv(folder / "metadata.csv", ("file_name", "text"), pairs)
    return folder


def imagefolder_jsonl(folder: Path, pairs: Pairs) -> Path:
    write_images(folder, pairs)
    lines = [json.dumps({"file_name": name, "captions": captions}) for name, _, captions in pairs]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def imagefolder_parquet(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "train", pairs)
    rows = {"file_name": [name for name, _, _ in pairs], "captions": [captions for _, _, captions in pairs]}
    pl.DataFrame(rows).write_parquet(folder / "train" / "metadata.parquet")
    return folder


def imagefolder_txt(folder: Path, pairs: Pairs) -> Path:
    write_images(folder, pairs)
    for name, _, captions in pairs:
        (folder / name).with_suffix(".txt").write_bytes("\n".join(captions).encode() + b"\n")
    return folder


def imagefolder_json(folder: Path, pairs: Pairs) -> Path:
    write_images(folder, pairs)
    for name, _, captions in pairs:
        (folder / name).with_suffix(".json").write_text(json.dumps({"captions": captions, "width": 3}))
    return folder


def write_csv(path: Path, header: tuple[str, str], pairs: Pairs, delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows([name, caption] for name, _, captions in pairs for caption in captions)
    return path


def csv_file(folder: Path, pairs: Pairs) -> Path:
    write_images(folder, pairs)
    return write_csv(folder / "pairs.csv", ("image", "caption"), pairs)


def tsv_file(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "elsewhere", pairs)
    return write_csv(folder / "train.tsv", ("filepath", "title"), pairs, "\t")


def jsonl_file(folder: Path, pairs: Pairs) -> Path:
    write_images(folder, pairs)
    lines = [json.dumps({"image": name, "caption": caption}) for name, _, captions in pairs for caption in captions]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "pairs.jsonl"


def coco(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "train2017", pairs)
    images = [{"id": 7 * k, "file_name": name} for k, (name, _, _) in enumerate(pairs)]
    # as in COCO, the captions of an image do not stand together
    rounds = max(len(captions) for _, _, captions in pairs)
    annotations = [
        {"image_id": 7 * k, "id": 100 * turn + k, "caption": captions[turn]}
        for turn in range(rounds)
        for k, (_, _, captions) in enumerate(pairs)
        if turn < len(captions)
    ]
    path = folder / "annotations" / "captions_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"info": {}, "images": images, "licenses": [], "annotations": annotations}))
    return path


def karpathy(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "val2014", pairs)
    images = [
        {
            "filepath": "val2014",
            "filename": name,
            "imgid": k,
            "split": ("train", "restval", "val", "test")[k % 4],
            "sentences": [{"raw": caption, "tokens": caption.split()} for caption in captions],
        }
        for k, (name, _, captions) in enumerate(pairs)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return folder / "dataset_coco.json"


def flickr_token(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "Flicker8k_Dataset", pairs)
    lines = [f"{name}#{k}\t{caption}" for name, _, captions in pairs for k, caption in enumerate(captions)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    return folder / "Flickr8k.token.txt"


def flickr_bars(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "flickr30k_images", pairs)
    lines = [f"{name}| {k}| {caption}" for name, _, captions in pairs for k, caption in enumerate(captions)]
    (folder / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(lines) + "\n")
    return folder / "results.csv"


def flickr_commas(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "Images", pairs)
    return write_csv(folder / "captions.txt", ("image", "caption"), pairs)


def webdataset(folder: Path, pairs: Pairs) -> Path:
    folder.mkdir(parents=True)
    half = len(pairs) // 2
    for shard, part in enumerate((pairs[:half], pairs[half:])):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for name, data, captions in part:
                stem, _, kind = name.rpartition(".")
                add_member(tar, f"{stem}.{kind}", data)
                add_member(tar, f"{stem}.txt", captions[0].encode())
                add_member(tar, f"{stem}.json", json.dumps({"captions": captions, "key": stem}).encode())
    return folder


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def parquet_struct(folder: Path, pairs: Pairs) -> Path:
    folder.mkdir(parents=True)
    rows = [{"bytes": data, "path": name} for name, data, _ in pairs]
    table = pl.DataFrame({"image": rows, "captions": [captions for _, _, captions in pairs]})
    table.write_parquet(folder / "train-00000-of-00001.parquet", row_group_size=2)
    return folder


def parquet_labels(folder: Path, pairs: Pairs) -> Path:
    folder.mkdir(parents=True)
    rows = [{"bytes": data, "path": name} for name, data, _ in pairs]
    table = pl.DataFrame({"image": rows, "caption": [captions for _, _, captions in pairs], "kind": ["x"] * len(pairs)})
    table.write_parquet(folder / "test-00000-of-00001.parquet")
    return folder


def parquet_rows(folder: Path, pairs: Pairs) -> Path:
    """One row a caption, the image again in each."""
    folder.mkdir(parents=True)
    rows = [({"bytes": data, "path": name}, caption) for name, data, captions in pairs for caption in captions]
    table = pl.DataFrame({"image": [row[0] for row in rows], "caption": [row[1] for row in rows]})
    table.write_parquet(folder / "pairs.parquet")
    return folder / "pairs.parquet"


def parquet_paths(folder: Path, pairs: Pairs) -> Path:
    write_images(folder / "images", pairs)
    rows = [(name, caption) for name, _, captions in pairs for caption in captions]
    table = pl.DataFrame({"image_path": [row[0] for row in rows], "text": [row[1] for row in rows]})
    table.write_parquet(folder / "pairs.parquet")
    return folder / "pairs.parquet"


def saved(folder: Path, pairs: Pairs) -> Path:
    """As `Dataset.save_to_disk` writes it; test_huggingface_saved.py compares with the library itself."""
    folder.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([{"bytes": data, "path": name} for name, data, _ in pairs], kind),
            "caption": pa.array([captions for _, _, captions in pairs], pa.list_(pa.string())),
        }
    )
    name = "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(folder / name, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": "train"}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


FORMATS = {
    "imagefolder-csv": ("imagefolder", imagefolder_csv),
    "imagefolder-jsonl": ("imagefolder", imagefolder_jsonl),
    "imagefolder-parquet": ("imagefolder", imagefolder_parquet),
    "imagefolder-txt": ("imagefolder", imagefolder_txt),
    "imagefolder-json": ("imagefolder", imagefolder_json),
    "csv": ("csv", csv_file),
    "tsv": ("csv", tsv_file),
    "jsonl": ("jsonl", jsonl_file),
    "coco": ("coco", coco),
    "karpathy": ("karpathy", karpathy),
    "flickr-token": ("flickr", flickr_token),
    "flickr-bars": ("flickr", flickr_bars),
    "flickr-commas": ("csv", flickr_commas),
    "webdataset": ("webdataset", webdataset),
    "parquet-struct": ("parquet", parquet_struct),
    "parquet-rows": ("parquet", parquet_rows),
    "parquet-paths": ("parquet", parquet_paths),
    "saved": ("saved", saved),
}


def seeded_shuffle(pairs: Pairs, seed: int = 0) -> Pairs:
    return [pairs[k] for k in np.random.default_rng(seed).permutation(len(pairs))]
