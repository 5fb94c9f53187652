"""Tables of a run folder keep their schema."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base import tables
from clipmem.base.errors import InputError
from clipmem.base.tables import SCHEMAS, Column, read_table, write_table
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


@given(st.lists(st.lists(st.text(max_size=3), max_size=3), max_size=9), st.integers(1, 4))
def test_columns_read_as_lists(values, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_BLOCK", block)
        column = Column(pl.Series(values, dtype=pl.List(pl.String)))
        assert (len(column), list(column), column[1:3]) == (len(values), values, values[1:3])
    assert [column[k] for k in np.arange(len(values))] == values
    assert list(Column(pl.Series(map(str, range(5))))) == ["0", "1", "2", "3", "4"]
    with pytest.raises(IndexError):
        column[len(values)]


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
