"""Parquet with pictures in it, as Hugging Face `datasets` writes it: bytes, or a struct of bytes and path."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from clipmem.base.errors import InputError, shorten
from clipmem.base.recipes import DataSection
from clipmem.base.suggest import did_you_mean
from clipmem.data.objects import object_lists
from clipmem.data.sources.base import SOURCES, Source
from clipmem.store.hashing import pair_uid


@SOURCES.register("parquet")
class ParquetSource(Source):
    """One Parquet file, or a folder of them (read in the order of their names); one row a pair."""

    def __init__(self, section: DataSection) -> None:
        super().__init__(section)
        path = Path(section.path)
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not section.path or not self._files or not all(file.is_file() for file in self._files):
            raise InputError(
                "[data] path",
                got=f"{section.path!r}, where there is no Parquet file",
                expected="a .parquet file, or a folder that holds some",
                todo="Set data.path.",
            )
        self._table = self._load()

    def _load(self) -> pl.DataFrame:
        section = self.section
        wanted = {
            section.image_column,
            section.caption_column,
            section.group_column,
            section.label_column,
            section.object_column,
        } - {""}
        try:
            names = pl.read_parquet_schema(self._files[0])
            for column in sorted(wanted):
                if column not in names:
                    raise InputError(
                        f"{self._files[0]}",
                        got=f"no column {column!r}",
                        todo=did_you_mean(column, names, kind="column"),
                    )
            table = pl.concat([pl.read_parquet(file, columns=sorted(wanted)) for file in self._files])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{section.path}", got=f"not readable as Parquet ({shorten(str(error))})") from error
        image = pl.col(section.image_column)
        if table.schema[section.image_column] != pl.Binary:
            if not isinstance(table.schema[section.image_column], pl.Struct):
                raise InputError(
                    f"column {section.image_column!r}",
                    got=f"{table.schema[section.image_column]}",
                    expected="bytes, or a struct with a field 'bytes'",
                    todo="Set data.image_column.",
                )
            image = image.struct.field("bytes")
        captions = pl.col(section.caption_column)
        if table.schema[section.caption_column] == pl.String:
            captions = captions.reshape((-1, 1)).cast(pl.List(pl.String))
        objects = object_lists(table[section.object_column]) if section.object_column else None
        return table.select(
            image.alias("bytes"),
            captions.alias("captions"),
            (pl.col(section.group_column).cast(pl.String) if section.group_column else pl.lit("")).alias("group"),
            (pl.col(section.label_column).cast(pl.String) if section.label_column else pl.lit("")).alias("label"),
            pl.Series("objects", [[]] * table.height if objects is None else objects, dtype=pl.List(pl.String)),
        )

    def pairs(self) -> pl.DataFrame:
        """Return one pair a row; without a group column every pair is a group of its own."""
        table = self._table
        for row, (image, captions) in enumerate(zip(table["bytes"], table["captions"].to_list(), strict=True)):
            if not image or not captions or any(not (caption or "").strip() for caption in captions):
                raise InputError(
                    f"{self.section.path}, row {row}",
                    got="no picture" if not image else f"captions {shorten(captions)}",
                    expected="a picture and at least one caption, none of them empty",
                    todo="Remove or mend that row.",
                )
        uids = [
            pair_uid(image, captions)
            for image, captions in zip(table["bytes"], table["captions"].to_list(), strict=True)
        ]
        seen: dict[str, int] = {}
        for row, uid in enumerate(uids):
            if uid in seen:
                raise InputError(
                    f"{self.section.path}, row {row}",
                    got=f"the same picture and captions as row {seen[uid]}",
                    expected="every pair once",
                    todo="Remove one of them.",
                )
            seen[uid] = row
        rows = pl.Series("row", range(table.height))
        uid = pl.Series("uid", uids)
        return pl.DataFrame(
            {
                "uid": uid,
                "key": rows.cast(pl.String),
                "image": rows.cast(pl.String),
                "captions": table["captions"],
                "variants": pl.Series([[]] * table.height, dtype=pl.List(pl.String)),
                "group": table["group"] if self.section.group_column else uid,
                "label": table["label"].fill_null(""),
                "sublabel": pl.Series([""] * table.height),
                "credit": pl.Series([""] * table.height),
                "objects": table["objects"],
            }
        ).sort("uid")

    def read(self, references: Sequence[str]) -> list[bytes]:
        """Return the encoded pictures of these rows."""
        column = self._table["bytes"]
        return [column[int(reference)] for reference in references]
