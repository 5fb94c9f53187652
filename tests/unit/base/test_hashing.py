"""Content hashes."""

import hashlib

from clipmem.base.hashing import data_fingerprint, json_sha256, pair_uid


def test_uid_tells_parts_apart():
    assert len(pair_uid(b"x", ["a"])) == 32
    assert pair_uid(b"x", ["ab"]) != pair_uid(b"x", ["a", "b"])
    assert pair_uid(b"xa", []) != pair_uid(b"x", ["a"])
    assert pair_uid(b"", ["\ud800"]) != pair_uid(b"", ["?"])  # a lone surrogate is hashed, not refused
    assert data_fingerprint(["a", "b"]) == data_fingerprint(["b", "a"]) != data_fingerprint(["a"])
    text = '{"a":[1.5,"ü"],"b":1}'
    assert json_sha256({"b": 1, "a": [1.5, "ü"]}) == hashlib.sha256(text.encode()).hexdigest()
