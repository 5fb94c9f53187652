"""The pixel cache."""

import numpy as np
import pytest

from clipmem.base.errors import InputError
from clipmem.data.cache import build_cache, open_cache
from clipmem.data.decoding import Geometry, decode
from tests.tiny import encoded_image


def test_cache_holds_what_decode_gives(tmp_path):
    data = {str(seed): encoded_image(seed, size=40) for seed in range(3)}
    done: list[int] = []
    build_cache(
        tmp_path / "c.npy",
        {0: "2", 1: "0"},
        lambda names: [data[name] for name in names],
        Geometry(16),
        progress=done.append,
    )
    cache = open_cache(tmp_path / "c.npy")
    np.testing.assert_array_equal(cache, np.stack([decode(data["2"], 16), decode(data["0"], 16)]))
    assert done == [2]
    with pytest.raises(InputError, match="image '1': got 1 bytes that do not decode"):
        build_cache(tmp_path / "d.npy", {0: "1"}, lambda _: [b"x"], Geometry(16))
    assert not (tmp_path / "d.npy").exists()
    with pytest.raises(InputError, match="pixel cache"):
        open_cache(tmp_path / "d.npy")
