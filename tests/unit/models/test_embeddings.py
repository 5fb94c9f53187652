"""`models.embeddings`: parts that resume, chunks, pairs without embeddings, single views, types on disk."""

import json
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.data.skipped import Problem
from clipmem.models import embeddings, openclip
from clipmem.models.embeddings import Embeddings, embed
from clipmem.study.score_inputs import Settings, read_pairs
from tests.tiny import encoded_image

N = 11
BLOCK = 2  # so that a part of 4 pairs has whole blocks
CAPTIONS = [[f"thing {k}", f"another caption of {k}"][: 1 + k % 2] for k in range(N)]


class Stop(BaseException):
    """A kill that a test can aim."""


class Stopper:
    """Counts passes of pairs, and stops after some."""

    def __init__(self, after=3 * N):
        self.after, self.total, self.done = after, 0, 0

    def begin(self, stage, total=None, unit=""):
        self.total += total

    def advance(self, amount, note=""):
        self.done += amount
        if self.done >= self.after:
            raise Stop

    def note(self, text): ...

    def end(self, stage, seconds, *, skipped=False): ...


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    images = [b"\x89PNG\r\n\x1a\n no image" if k == 5 else encoded_image(k) for k in range(N)]
    pl.DataFrame({"image": images, "captions": CAPTIONS}).write_parquet(folder / "pairs.parquet")
    openclip.create("clipmem-micro", seed=1).save(folder / "small")
    openclip.create("clipmem-tiny", seed=2).save(folder / "large")
    return folder


def run(world, folder, *names, part=None, single=False, **how):
    settings = Settings.of(views=how.pop("views", 0), dtype=how.pop("dtype", "float32"), device="cpu")
    pairs = how.pop("pairs", None) or read_pairs(str(world / "pairs.parquet"), None, "--data")
    models = [settings.model(str(world / name)) for name in names or ("small",)]
    folders = {folder / f"{k}": model for k, model in enumerate(models)}
    made_with = settings.made_with() | ({"single": True} if single else {})
    with patch.object(embeddings, "BLOCKS", part // BLOCK if part else embeddings.BLOCKS):
        return embed(folders, pairs, made_with, block=BLOCK, **how)


def files(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_stopped_anywhere_it_resumes_part_by_part_and_ends_with_the_same_bytes(world, tmp_path):
    run(world, tmp_path / "whole", "small", "large", part=4)
    expected = files(tmp_path / "whole")
    for after in (1, 8, 12, 20):  # of the passes of pairs, two models each
        place = tmp_path / str(after)
        with pytest.raises(Stop):
            run(world, place, "small", "large", part=4, reporter=Stopper(after))
        again = Stopper()
        run(world, place, "small", "large", part=4, reporter=again)
        assert again.total == again.done == 2 * (N - (after - 1) // 8 * 4)
        assert files(place) == expected
    done = Stopper()
    run(world, tmp_path / "whole", "small", "large", part=4, reporter=done)
    assert done.total == 0


def test_a_part_is_of_its_own_pairs_and_its_own_model(world, tmp_path):
    [first] = run(world, tmp_path, part=4)
    image, uids = first.means().image, first.uids.to_list()
    # the models are run by themselves: the second finds the first finished
    counts = Stopper()
    both = run(world, tmp_path, "small", "large", part=4, reporter=counts)
    assert counts.total == N
    assert torch.equal(both[0].means().image, image)
    # the same pairs in another order are other parts, in a folder of their own
    pairs = read_pairs(str(world / "pairs.parquet"), None, "--data")
    pairs.table = pairs.table.reverse()
    with pytest.raises(InputError) as error:
        run(world, tmp_path, part=4, pairs=pairs)
    assert error.value.got.startswith("data = ")
    [reverse] = run(world, tmp_path / "reverse", part=4, pairs=pairs)
    assert reverse.uids.to_list() == uids[::-1]


@pytest.mark.parametrize("part", [2, 6, 100])
def test_parts_and_chunks_change_no_bit(world, tmp_path, part):
    [expected] = run(world, tmp_path / "a", part=4)
    [found] = run(world, tmp_path / "b", part=part)
    whole = expected.means()
    assert whole.image.shape == (N - 1, 32)
    for size in (1, 3, 100):
        chunks = list(found.chunks(size))
        assert len(chunks) == -(-(N - 1) // size)
        assert torch.equal(torch.cat([chunk.image for chunk in chunks]), whole.image)
        assert torch.equal(torch.cat([chunk.text for chunk in chunks]), whole.text)
    rows = found.rows(pl.Series(["nowhere", *found.uids[[7, 0, 5]]]))
    assert rows.tolist() == [-1, 7, 0, 5]
    assert torch.equal(found.read(rows[1:]).text, whole.text[[7, 0, 5]])


def test_pairs_without_an_image_are_listed_and_the_others_stay_in_order(world, tmp_path):
    [found] = run(world, tmp_path, part=4)
    name = str(world / "pairs.parquet")
    assert [(problem.source, problem.key) for problem in found.problems] == [(name, "5")]
    assert isinstance(found.problems[0], Problem)
    usable = [captions for k, captions in enumerate(CAPTIONS) if k != 5]
    assert found.captions(np.arange(N - 1)) == usable
    assert found.captions(np.array([9, 0])) == [usable[9], usable[0]]


def test_single_views_and_captions_have_the_stored_means(world, tmp_path):
    [found] = run(world, tmp_path, part=4, views=3, single=True)
    rows = np.array([8, 2, 3])
    means = found.read(rows)
    assert means.single.image.shape == (3, 3, 32)
    assert means.single.text_pair.tolist() == [k for k, row in enumerate([9, 2, 3]) for _ in CAPTIONS[row]]
    unit = torch.nn.functional.normalize(means.single.image, dim=-1).mean(dim=1)
    torch.testing.assert_close(unit, means.image, rtol=0, atol=1e-6)
    for k in range(3):
        text = torch.nn.functional.normalize(means.single.text[means.single.text_pair == k], dim=-1).mean(dim=0)
        torch.testing.assert_close(text, means.text[k], rtol=0, atol=1e-6)


def test_float16_takes_half_the_space_and_is_read_as_float32(world, tmp_path):
    [whole], [half] = run(world, tmp_path / "a"), run(world, tmp_path / "b", dtype="float16")
    assert np.load(tmp_path / "b" / "0" / "img_emb" / "img_emb_0.npy").dtype == np.float16
    assert half.means().image.dtype == torch.float32
    torch.testing.assert_close(half.means().image, whole.means().image, rtol=0, atol=5e-4)
    with pytest.raises(InputError) as error:
        run(world, tmp_path / "a", dtype="float16")
    assert error.value.got == "dtype = 'float32' there, 'float16' now"


def test_a_marker_has_the_key_of_its_part_and_no_time(world, tmp_path):
    run(world, tmp_path, part=4)
    markers = [json.loads(file.read_text()) for file in sorted((tmp_path / "0" / "markers").iterdir())]
    assert [marker["stage"] for marker in markers] == ["part-000000", "part-000001", "part-000002"]
    assert len({marker["key"] for marker in markers}) == 3
    assert {marker["seconds"] for marker in markers} == {0.0}
    # a part whose file is damaged in size is made again
    before = files(tmp_path)
    (tmp_path / "0" / "text_emb" / "text_emb_1.npy").write_bytes(b"half")
    again = Stopper()
    run(world, tmp_path, part=4, reporter=again)
    assert again.total == 4
    assert files(tmp_path) == before
    assert len(Embeddings.open(tmp_path / "0")) == N - 1
