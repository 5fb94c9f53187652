"""Steps for Ray Data: the pairs, uids and embeddings that clipmem itself reads and computes; no Ray is needed."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.integrations.ray import Embed, Records
from clipmem.models import openclip
from clipmem.models.embeddings import Embeddings
from clipmem.study import scoring
from clipmem.study.score_inputs import Settings
from tests.tiny import encoded_image

SAMPLES = {
    "000": {"png": encoded_image(0), "txt": b"a cat"},
    "001": {"jpg": encoded_image(1, form="JPEG"), "json": json.dumps({"caption": "a dog"}).encode()},
    "002": {"png": encoded_image(2), "txt": b"a bird\n", "json": json.dumps({"captions": ["x", "y"]}).encode()},
    "003": {"png": b"no image", "txt": b"a fish"},
    "004": {"txt": b"alone"},
    "005": {"png": encoded_image(5), "txt": b"  "},
    "006": {"png": encoded_image(6)[:60], "txt": b"cut off"},
    "007": {"JPG": encoded_image(7, form="JPEG"), "TXT": b"a cow"},
}
PAIRS = ["000", "001", "002", "006", "007"]


@pytest.fixture(scope="module")
def samples():
    """The samples as Ray gives them: a column per kind, null where a sample has none."""
    kinds = sorted({kind for members in SAMPLES.values() for kind in members})
    columns = {kind: [members.get(kind) for members in SAMPLES.values()] for kind in kinds}
    return pa.table({"__key__": list(SAMPLES), **columns})


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "shard.tar"
    with tarfile.open(path, "w") as archive:
        for key, members in SAMPLES.items():
            for kind, data in members.items():
                info = tarfile.TarInfo(f"{key}.{kind}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_pairs_are_those_of_the_same_tar(samples, tar):
    records = Records()(samples)
    table = clipmem.load_pairs(tar).pairs()
    good = {row["key"]: row for row in records.to_pylist() if not row["problem"]}
    assert list(good) == PAIRS
    assert {row["key"]: row["uid"] for row in table.to_dicts()} == {key: row["uid"] for key, row in good.items()}
    assert {row["key"]: row["captions"] for row in table.to_dicts()} == {k: row["captions"] for k, row in good.items()}
    assert all(row["image"] == next(iter(SAMPLES[key].values())) for key, row in good.items())


def test_others_say_why(samples):
    rows = {row["key"]: row for row in Records()(samples).to_pylist()}
    assert {key: row["problem"] for key, row in rows.items() if row["problem"]} == {
        "003": "not an image of a known format",
        "004": "no image",
        "005": "empty caption",
    }
    assert all(not row["uid"] and row["image"] is None for row in rows.values() if row["problem"])


def test_an_empty_batch_and_keys(samples):
    assert Records()(samples.slice(0, 0)).num_rows == 0
    named = Records(caption_column="captions")(samples).to_pylist()
    assert named[2]["captions"] == ["x", "y"]
    with pytest.raises(InputError) as caught:
        Records(no_such_key=1)
    assert "no_such_key" in str(caught.value)
    with pytest.raises(InputError) as caught:
        Records()(samples.drop_columns(["__key__"]))
    assert (caught.value.what, caught.value.expected) == ("samples", "__key__, an image and texts")


def test_embeddings_are_those_of_the_command(samples, tar, tmp_path):
    openclip.create("clipmem-micro", seed=1).save(tmp_path / "model")
    table = Embed(str(tmp_path / "model"))(Records()(samples))
    assert table.column_names == ["uid", "key", "captions", "image_embedding", "text_embedding", "problem"]
    rows = {row["uid"]: row for row in table.to_pylist() if not row["problem"]}
    scoring.embed_pairs(str(tmp_path / "model"), str(tar), tmp_path / "emb", Settings.of())
    stored = Embeddings.open(tmp_path / "emb")
    assert sorted(rows) == sorted(stored.uids)
    means = stored.means()
    for k, uid in enumerate(stored.uids):
        np.testing.assert_allclose(rows[uid]["image_embedding"], means.image[k], atol=1e-6)
        np.testing.assert_allclose(rows[uid]["text_embedding"], means.text[k], atol=1e-6)
    broken = {row["key"]: row for row in table.to_pylist() if row["problem"]}
    assert sorted(broken) == ["003", "004", "005", "006"]  # 006 does not decode
    assert all(row["image_embedding"] is None for row in broken.values())


def test_a_batch_without_pairs(samples, tmp_path):
    openclip.create("clipmem-micro", seed=1).save(tmp_path / "model")
    table = Embed(str(tmp_path / "model"))(Records()(samples.slice(3, 2)))
    assert table["image_embedding"].to_pylist() == [None, None]


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(InputError):
        Embed(str(tmp_path / "none"))
