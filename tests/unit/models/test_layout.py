"""The clip-retrieval layout: what it reads, what it writes, what it refuses."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.hashing import pair_uid
from clipmem.models import layout
from clipmem.models.embeddings import Embeddings
from clipmem.models.passes import unit_means

TODO = "Create the folder with `clipmem export embeddings`, or with clip-retrieval's inference of images and texts."


def write(folder, sizes, *, width=8, dtype=np.float16, digits=1, seed=0, **columns):
    """Write parts as clip-retrieval's inference does: unit rows, image_path and caption."""
    stream, start, rows = np.random.default_rng(seed), 0, []
    for k, size in enumerate(sizes):
        for name in ("img_emb", "text_emb"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            values = stream.normal(size=(size, width))
            values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype)
            np.save(folder / name / f"{name}_{k:0{digits}d}.npy", values)
            rows.append(values)
        (folder / "metadata").mkdir(exist_ok=True)
        table = {
            "image_path": [f"{n}.jpg" for n in range(start, start + size)],
            "caption": [f"caption {n}" for n in range(start, start + size)],
            "width": [640] * size,  # as img2dataset's json adds it
        }
        pl.DataFrame(table | {name: values[start : start + size] for name, values in columns.items()}).write_parquet(
            folder / "metadata" / f"metadata_{k:0{digits}d}.parquet"
        )
        start += size
    return np.concatenate(rows[::2]), np.concatenate(rows[1::2])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("digits", [1, 3])
def test_rows_of_another_writer_are_read_and_normalized(tmp_path, dtype, digits):
    image, text = write(tmp_path, (5, 1, 7), dtype=dtype, digits=digits)
    found = Embeddings.open(tmp_path)
    assert (len(found), found.means().image.shape) == (13, (13, 8))
    assert found.uids.to_list() == [pair_uid(f"{n}.jpg".encode(), [f"caption {n}"]) for n in range(13)]
    rows = np.array([12, 0, 5, 6, 4, 0])
    means = found.read(rows)
    for values, ours in ((image, means.image), (text, means.text)):
        wide = values[rows].astype(np.float64)
        np.testing.assert_allclose(ours, wide / np.linalg.norm(wide, axis=1, keepdims=True), rtol=0, atol=1e-7)
    assert means.ok.all()
    assert found.captions(rows) == [[f"caption {n}"] for n in rows]


def test_eleven_parts_are_read_in_the_order_of_their_numbers(tmp_path):
    image, _ = write(tmp_path, (2,) * 11, dtype=np.float32)
    np.testing.assert_allclose(Embeddings.open(tmp_path).read(np.arange(22)).image, image, atol=1e-6)


def test_a_row_without_a_direction_is_marked(tmp_path):
    write(tmp_path, (4,))
    file = tmp_path / "img_emb" / "img_emb_0.npy"
    values = np.load(file)
    values[1], values[3, 2] = 0, np.nan
    np.save(file, values)
    assert Embeddings.open(tmp_path).read(np.arange(4)).ok.tolist() == [True, False, True, False]


def test_what_clipmem_writes_is_read_bit_for_bit_and_never_normalized(tmp_path):
    stream = torch.Generator().manual_seed(0)
    means = unit_means(
        torch.randn(6, 3, 5, generator=stream), torch.randn(12, 5, generator=stream), torch.arange(6).repeat(2)
    )
    assert (torch.linalg.vector_norm(means.image, dim=1) < 0.99).any()
    captions = [[f"a {n}", "b"] for n in range(6)]
    table = pl.DataFrame({"image_path": list("uvwxyz"), "caption": "a", "uid": list("abcdef"), "captions": captions})
    layout.write_card(tmp_path, {"parts": 2})
    layout.write_part(tmp_path, 0, 1, means.select(torch.arange(4)), table[:4])
    with pytest.raises(InputError) as error:
        Embeddings.open(tmp_path)
    assert str(error.value) == (
        f"embeddings in {tmp_path}: got 1 of 2 parts, expected all of them. "
        "Run the command that created the folder again: it resumes."
    )
    layout.write_part(tmp_path, 1, 1, means.select(torch.arange(4, 6)), table[4:])
    found = Embeddings.open(tmp_path)
    again = found.read(np.arange(6))
    assert torch.equal(again.image, means.image)
    assert torch.equal(again.text, means.text)
    assert found.uids.to_list() == list("abcdef")
    assert found.captions(np.array([5, 1])) == [captions[5], captions[1]]
    assert sorted(file.name for file in tmp_path.rglob("*.npy")) == [
        "img_emb_0.npy", "img_emb_1.npy", "text_emb_0.npy", "text_emb_1.npy",
    ]  # fmt: skip


def test_content_changes_with_every_file(tmp_path):
    write(tmp_path, (3, 2))
    seen = {Embeddings.open(tmp_path).content()["embeddings"]}
    for file in sorted(tmp_path.rglob("*.npy")):
        np.save(file, np.load(file)[::-1])
        seen.add(Embeddings.open(tmp_path).content()["embeddings"])
    assert len(seen) == 5


def break_text(folder):
    (folder / "text_emb" / "text_emb_1.npy").unlink()


def break_rows(folder):
    np.save(folder / "text_emb" / "text_emb_1.npy", np.ones((3, 8), np.float16))


def break_kind(folder):
    np.save(folder / "img_emb" / "img_emb_0.npy", np.ones((3, 8), np.int64))


def break_pickle(folder):
    np.save(folder / "img_emb" / "img_emb_0.npy", np.array([{}] * 3, dtype=object), allow_pickle=True)


def break_width(folder):
    for name in ("img_emb", "text_emb"):
        np.save(folder / name / f"{name}_1.npy", np.ones((2, 4), np.float16))


def break_number(folder):
    (folder / "img_emb" / "img_emb_01.npy").write_bytes(b"")


def break_table(folder):
    (folder / "metadata" / "metadata_0.parquet").write_bytes(b"PAR1 no")


def break_card(folder):
    (folder / "clipmem.json").write_text(json.dumps({"format": 9}))


def break_all(folder):
    for file in folder.rglob("*_*.*"):
        file.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            break_text,
            "{f}: got parts 2 of img_emb, 1 of text_emb and 2 of metadata, expected the same numbered parts in "
            "all three. " + TODO,
        ),
        (
            break_all,
            "{f}: got parts 0 of img_emb, 0 of text_emb and 0 of metadata, expected the same numbered parts in "
            "all three. " + TODO,
        ),
        (
            break_rows,
            "{f}, part 1: got shapes (2, 8) and (3, 8), 2 rows of metadata, expected the same number of rows "
            "and one width. " + TODO,
        ),
        (break_width, "{f}: got widths [4, 8], expected one width. Use one model."),
        (
            break_number,
            "{f}: got img_emb_01.npy and img_emb_1.npy, expected each number once. Keep one of the files.",
        ),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path, how, message):
    write(tmp_path, (3, 2))
    how(tmp_path)
    assert layout.is_layout(tmp_path)
    with pytest.raises(InputError) as error:
        Embeddings.open(tmp_path)
    assert str(error.value) == "embeddings in " + message.format(f=tmp_path)


def test_what_is_a_folder_of_embeddings(tmp_path):
    assert not layout.is_layout(tmp_path / "nowhere")
    assert not layout.is_layout(tmp_path)
    (tmp_path / "img_emb").mkdir()
    assert layout.is_layout(tmp_path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (break_kind, "got an array of int64 with shape (3, 8), expected a floating-point array of shape (rows, d)."),
        (break_pickle, "got not readable as .npy ("),
        (break_table, "got not readable as Parquet ("),
        (break_card, "got format 9, expected format 1 or older. Update clipmem."),
    ],
)
def test_files_that_cannot_be_used(tmp_path, how, message):
    write(tmp_path, (3, 2))
    how(tmp_path)
    with pytest.raises(InputError) as error:
        Embeddings.open(tmp_path).read(np.arange(5))
    assert message in str(error.value)
