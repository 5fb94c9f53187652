"""Tables of a run folder keep their schema."""

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.tables import SCHEMAS, read_table, write_table
from tests.unit.base.test_folder import SPLITS


def test_tables_keep_their_schema(tmp_path):
    file = tmp_path / "splits.parquet"
    write_table(file, "splits", SPLITS.select(reversed(SPLITS.columns)))
    assert read_table(file, "splits").schema == pl.Schema(SCHEMAS["splits"])
    write_table(tmp_path / "again.parquet", "splits", SPLITS)
    assert (tmp_path / "again.parquet").read_bytes() == file.read_bytes()
    with pytest.raises(InputError) as error:
        write_table(file, "splits", SPLITS.drop("group").with_columns(x=1))
    assert "columns missing ['group'], unknown ['x']" in str(error.value)


def test_broken_tables_are_explained(tmp_path):
    file = tmp_path / "splits.parquet"
    with pytest.raises(InputError, match=r"got no file .*splits.parquet"):
        read_table(file, "splits")
    file.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="is not readable as Parquet"):
        read_table(file, "splits")
    SPLITS.drop("planted").write_parquet(file)
    with pytest.raises(InputError, match=r"expected also \['planted'\]"):
        read_table(file, "splits")
