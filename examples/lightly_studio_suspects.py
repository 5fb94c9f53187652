"""Review the suspects of `clipmem curate` in LightlyStudio, whose tags and captions come back as clipmem's marks.

    pip install lightly-studio  # in an environment with clipmem, of its own: it pins scikit-learn
    clipmem curate photos/ --out suspects
    python examples/lightly_studio_suspects.py suspects --count 500
    clipmem curate photos/ --out suspects --write cleaned

The page shows the suspects in their order, with caption, probability and reason. Tag an image `wrong`, `fine`,
`memorized` or `unsure`, or write a better caption. Ctrl-C ends, and appends what changed to `suspects.marks.jsonl`. Run
it again to go on: everything is in `suspects/lightly_studio`. Of several captions the first is shown. Nothing is
downloaded or sent: images are not embedded, and LightlyStudio's usage statistics are off unless you set their variable.
"""

import argparse
import io
import os
from pathlib import Path

import polars as pl
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.marks import MARKS, Entry, Mark, append_marks, marks_file, read_marks
from clipmem.report.explorer.subject import open_subject

os.environ.setdefault("LIGHTLY_STUDIO_ANALYTICS_ENABLED", "false")

import lightly_studio  # reads its variables here
from lightly_studio import db_manager

NO_MARK = Mark("", "", None)
SHOWN = ("probability", "score", "kind", "reason", "suggested_caption")


def opened(folder: Path):
    """Return the LightlyStudio data set of a list, which is new the first time."""
    db_manager.close()  # the server closes it, too
    db_manager.connect(db_file=str((folder / "lightly_studio" / "suspects.db").absolute()))
    return lightly_studio.ImageDataset.load_or_create(name="suspects")


def show(folder: Path, count: int):
    """Add the first suspects of a list to its data set, but for those that it has."""
    subject = open_subject(folder)
    if subject.source is None or subject.pairs is None:
        raise InputError(f"data of {folder}", got="no images", expected="the data of its list", hint="Curate again.")
    table = subject.scores.filter("is_suspect").head(count).with_row_index("rank", 1)
    table = table.join(subject.pairs, on="uid", maintain_order="left")
    marks, images = read_marks(marks_file(subject.path)), folder / "lightly_studio" / "images"
    images.mkdir(parents=True, exist_ok=True)
    dataset = opened(folder)
    present = {sample.metadata["uid"] for sample in dataset}
    rows = {row["uid"]: row for row in table.filter(~pl.col("uid").is_in(list(present))).to_dicts()}
    contents = subject.source.read([row["image"] for row in rows.values()])
    for (uid, row), data in zip(rows.items(), contents, strict=True):
        ending = str(Image.open(io.BytesIO(data)).format).lower()
        (images / f"{row['rank']:05}-{uid}.{ending}").write_bytes(data)  # shown in the order of their names
    dataset.add_images_from_path(images, embed=False)
    for sample in dataset:
        uid = Path(sample.file_name).stem.partition("-")[2]
        if uid in rows:
            mark, caption = marks.get(uid, NO_MARK), rows[uid]["captions"][0]
            state = {"caption": caption, "mark": mark.mark, "new_caption": mark.caption or ""}
            facts = {name: rows[uid][name] for name in SHOWN if rows[uid][name] is not None}
            sample.metadata.update({"uid": uid, **facts, **state})
            sample.captions = [state["new_caption"] or caption]
            sample.tags = {"suspect", mark.mark} - {""}


def decision(sample) -> tuple[str, str] | None:
    """Return the mark and the new caption of a sample, empty if there is none; None if they contradict."""
    tags, texts = sample.tags & set(MARKS), [text.strip() for text in sample.captions]
    new = [text for text in texts if text != sample.metadata["caption"].strip()] if any(texts) else []
    if len(tags) > 1 or len(new) > 1 or (new and tags - {"wrong"}):
        return None
    return ("wrong", new[0]) if new else (next(iter(tags), ""), "")


def take_back(folder: Path) -> tuple[int, list[str]]:
    """Append the decisions that changed to the marks of the list; return how many, and the images of unclear ones."""
    changed, unclear = [], []
    for sample in opened(folder):
        state = decision(sample)
        if state is None:
            unclear.append(sample.file_name)
        elif state != (sample.metadata["mark"], sample.metadata["new_caption"]):
            changed.append((sample, state))
    entries = [Entry(sample.metadata["uid"], mark or None, None, new or None) for sample, (mark, new) in changed]
    append_marks(marks_file(open_subject(folder).path), entries)
    for sample, (mark, new) in changed:
        sample.metadata.update({"mark": mark, "new_caption": new})
    return len(changed), unclear


def main(arguments=None):
    """Show the suspects until Ctrl-C, and take the decisions back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--port", type=int)
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args(arguments)
    show(options.folder, options.count)
    lightly_studio.start_gui("127.0.0.1", options.port, open_browser=not options.no_browser)
    changed, unclear = take_back(options.folder)
    print(f"{changed} marks taken back")
    for name in unclear:
        print(f"not taken back, has several marks, or a new caption and another mark than wrong: {name}")


if __name__ == "__main__":
    main()
