"""How good is the head of the list on errors that nobody planted? Pairs of it, read by two readers blind to the rank.

    python experiments/curate/clipart.py package titles.parquet --titles
    python -m clipmem_reproduce.data.manual manual.parquet
    clipmem curate titles.parquet --out titles
    clipmem curate manual.parquet --out manual
    python experiments/curate/reading.py sheets titles titles.parquet sheets-titles
    python experiments/curate/reading.py sheets manual manual.parquet sheets-manual

writes sheets of numbered pairs in random order, and `key.json`, which readers do not see: the first 100 pairs of the
list, the first 100 that no rule flags, and 100 others at random. Each reader writes a file of lines `NUMBER LABEL`, by
these definitions:

    fits      the caption says what the image shows, so that a person would choose this image for it among many others
    vague     it may be true, but says little: the name of a collection or a file, or words that fit very many images
    wrong     it says something that the image does not show
    unsure    the reader cannot tell

    python experiments/curate/reading.py record titles sheets-titles/key.json reader-1.txt reader-2.txt
    python experiments/curate/reading.py record manual sheets-manual/key.json reader-1.txt reader-2.txt
    python experiments/curate/reading.py page

stores the labels, and what the list in the folder of that name expects, in reading.json, and writes the table of
RESULTS.md.
"""

import argparse
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import cohen_kappa_score

from clipmem.base.errors import require
from clipmem.base.paths import write_json
from clipmem.base.random import generator
from clipmem.base.sections import DataSection
from clipmem.curation.suspects import by_rule
from clipmem.stats.ranking import beta_bounds
from clipmem.study.score_inputs import read_pairs

HERE = Path(__file__).parent
RECORD, PAGE, MARK = HERE / "reading.json", HERE / "RESULTS.md", "<!-- reading -->\n"
LABELS = "fits", "vague", "wrong", "unsure"
LISTS = {"first": "first {} of the list", "unruled": "first {} that no rule flags", "random": "{} others at random"}
COUNT, COLUMNS, ROWS, CELL = 100, 5, 4, (260, 330)
Entry = dict[str, Any]


def items(folder: Path) -> list[Entry]:
    """Return the pairs to read in random order: uid, caption, lists with the rank in each."""
    table = pl.read_parquet(folder / "suspects.parquet", columns=["uid", "probability", "kind"])
    captions = pl.read_parquet(folder / "ranking.parquet", columns=["uid", "caption"])
    uids = table["uid"].to_list()
    ruled = set(table.filter(by_rule())["uid"])
    lists = {"first": uids[:COUNT], "unruled": [uid for uid in uids if uid not in ruled][:COUNT]}
    rest = sorted(set(uids) - {uid for chosen in lists.values() for uid in chosen})
    stream = generator(0, "reading")
    lists["random"] = [rest[k] for k in stream.permutation(len(rest))[:COUNT]]
    ranks: dict[str, dict[str, int]] = {}
    for name, chosen in lists.items():
        for rank, uid in enumerate(chosen, 1):
            ranks.setdefault(uid, {})[name] = rank
    text = dict(captions.iter_rows())
    order = sorted(ranks)
    return [
        {"uid": order[k], "caption": text[order[k]], "ranks": ranks[order[k]]} for k in stream.permutation(len(order))
    ]


def sheet(entries: Sequence[tuple[int, str, bytes]]) -> Image.Image:
    """Draw numbered pairs."""
    width, height = CELL
    page, font = Image.new("RGB", (COLUMNS * width, ROWS * height), "white"), ImageFont.load_default(size=15)
    draw = ImageDraw.Draw(page)
    for k, (number, caption, data) in enumerate(entries):
        x, y = k % COLUMNS * width, k // COLUMNS * height
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = min((width - 20) / image.width, (height - 110) / image.height)
        size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        page.paste(image.resize(size, Image.Resampling.LANCZOS), (x + 10, y + 24))
        draw.text((x + 10, y + 4), f"{number}", fill="red", font=font)
        lines = textwrap.wrap(caption, 32, max_lines=4, placeholder=" ...") or ["(no caption)"]
        draw.text((x + 10, y + height - 82), "\n".join(lines), fill="black", font=font)
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline="gray")
    return page


def sheets(folder: Path, data: Path, out: Path) -> None:
    """Write the sheets and the key."""
    entries = items(folder)
    section = DataSection.model_validate({"source": "parquet", "path": str(data), "caption_column": "captions"})
    pairs = read_pairs(section, None, "--data")
    source, image = pairs.source, dict(pairs.table.select("uid", "image").iter_rows())
    require(source, f"{data}", "no images", "a file of images", "Give the data of the list.")
    out.mkdir(parents=True)
    files = source.read([image[entry["uid"]] for entry in entries]) if source else []
    numbered = [(k + 1, entry["caption"], file) for k, (entry, file) in enumerate(zip(entries, files, strict=True))]
    for start in range(0, len(numbered), COLUMNS * ROWS):
        sheet(numbered[start : start + COLUMNS * ROWS]).save(out / f"sheet-{start // (COLUMNS * ROWS) + 1:02d}.png")
    write_json(out / "key.json", entries)
    print(f"{len(entries)} pairs in {out}")


def record(folder: Path, key: Path, readers: Sequence[Path]) -> None:
    """Store the labels of the readers, and what the list expects."""
    entries = json.loads(key.read_text(encoding="utf-8"))
    for reader in readers:
        lines = [line.split() for line in reader.read_text(encoding="utf-8").splitlines() if line.strip()]
        labels = {int(number): label for number, label in lines}
        complete = labels.keys() == set(range(1, len(entries) + 1)) and set(labels.values()) <= set(LABELS)
        expected = f"the numbers 1 to {len(entries)}, each with one of {', '.join(LABELS)}"
        require(complete, f"{reader}", f"{len(labels)} numbers", expected, "Read the sheets again.")
        for number, entry in enumerate(entries, 1):
            entry.setdefault("labels", []).append(labels[number])
    stored = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    rows = [{"uid": one["uid"], "ranks": one["ranks"], "labels": one["labels"]} for one in entries]
    document = json.loads((folder / "curate.json").read_text(encoding="utf-8"))
    about = {name: document[name] for name in ("pairs", "suspects", "by_rule", "expectation")}
    about |= {"expected": document["expected"]["pairs"], "rows": sorted(rows, key=lambda row: row["uid"])}
    write_json(RECORD, stored | {folder.name: about})


def flawed(rows: Sequence[Entry], *labels: str) -> int:
    """Count the pairs to which both readers gave one of some labels."""
    return sum(all(label in labels for label in row["labels"]) for row in rows)


def table(stored: dict[str, Entry]) -> str:
    """Return the table of precision, and what the list expects beside what was read."""
    lines = [
        "| data | pairs | vague or wrong | 95% interval | wrong | 95% interval |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for data, about in stored.items():
        for name, title in LISTS.items():
            for count in (COUNT // 2, COUNT) if name != "random" else (COUNT,):
                some = [row for row in about["rows"] if row["ranks"].get(name, count + 1) <= count]
                cells = [data, title.format(len(some))]
                for labels in (("vague", "wrong"), ("wrong",)):
                    number = flawed(some, *labels)
                    low, high = beta_bounds(float(number), len(some), 0.95)
                    cells += [f"{number / len(some):.2f}", f"[{low:.2f}, {high:.2f}]"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *map(compared, stored.items()), ""])


def compared(item: tuple[str, Entry]) -> str:
    """Say how many captions are wrong by the reading, and what the list expects: of all pairs, and of its suspects."""
    data, about = item
    rows, rest = about["rows"], [row for row in about["rows"] if "random" in row["ranks"]]
    others, seen = about["pairs"] - (len(rows) - len(rest)), flawed([row for row in rows if row not in rest], "wrong")
    number = flawed(rest, "wrong")
    wrong = [
        round(seen + others * share) for share in (number / len(rest), *beta_bounds(float(number), len(rest), 0.95))
    ]
    first, second = zip(*(row["labels"] for row in rows), strict=True)
    text = f"- {data}: {wrong[0]} [{wrong[1]}, {wrong[2]}] of {about['pairs']:,} captions are wrong by the reading. "
    text += "The list expects {} [{}, {}]. ".format(*about["expected"])
    number = about["suspects"] - about["by_rule"]
    if about["suspects"] <= COUNT:
        [rates] = about["expectation"]
        others = [row for row in rows if row["ranks"].get("unruled", COUNT + 1) <= number]
        share = flawed(others, "vague", "wrong") / len(others)
        told = f"{rates['precision']:.2f} [{rates['low']:.2f}, {rates['high']:.2f}]"
        text += f"Of its {number} suspects that no rule flags, {share:.2f} are vague or wrong; {told} were expected. "
    same = float(np.mean(np.array(first) == second))
    return f"{text}The readers agree on {same:.2f} of {len(rows)} pairs (kappa {cohen_kappa_score(first, second):.2f})."


def page(text: str) -> str:
    """Return the page with the table of the record."""
    head, _, tail = text.split(MARK)
    return MARK.join([head, f"\n{table(json.loads(RECORD.read_text(encoding='utf-8')))}\n", tail])


def main() -> None:
    """Write sheets, store labels, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("sheets", "record", "page"))
    parser.add_argument("paths", nargs="*")
    options = parser.parse_args()
    if options.command == "sheets":
        sheets(*map(Path, options.paths))
    elif options.command == "record":
        folder, key, *readers = map(Path, options.paths)
        record(folder, key, readers)
    else:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
