"""Encoder passes: the same embeddings in any batches, views that belong to the pair, and arrays on disk."""

import copy
import re

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.data.decoding import decode
from clipmem.data.views import as_float, caption_edits, draw_crops, normalize_pixels, pair_keys, render
from clipmem.models import openclip, passes
from clipmem.models.openclip import OpenClipEncoder
from clipmem.models.passes import Inputs
from tests.tiny import encoded_image

N = 7
PIXELS = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
UIDS = [f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N)]
CAPTIONS = [[f"thing number {k}" + " and more" * j for j in range(k % 3 + 1)] for k in range(N)]
CROPS = TrainSection(crop_scale=(0.3, 0.9), flip=0.5)


@pytest.fixture(scope="module")
def micro():
    encoder = openclip.create("clipmem-micro", seed=7)
    encoder.module.eval()
    return encoder


def embedded(
    encoder, rows=range(N), *, views=0, batch_size=256, crops=CROPS, caption_edits=0, progress=None, **changes
):
    rows = list(rows)
    settings = EmbedSection(views=views, batch_size=batch_size, caption_edits=caption_edits)
    captions, uids = [CAPTIONS[k] for k in rows], [UIDS[k] for k in rows]
    inputs = Inputs(PIXELS, np.array(rows), captions, uids, **changes)
    return passes.embed(encoder, inputs, settings, crops, progress=progress or (lambda _: None))


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("views", [0, 1, 3])
def test_shapes(micro, views):
    found = embedded(micro, views=views)
    m = sum(map(len, CAPTIONS))
    assert found.image.shape == (N, max(1, views), 32)
    assert found.text.shape == (m, 32)
    assert found.text_pair.tolist() == [k for k in range(N) for _ in CAPTIONS[k]]
    assert found.image.dtype == found.text.dtype == torch.float32
    assert found.text_pair.dtype == torch.int64
    assert not found.image.requires_grad


def test_no_views_is_the_plain_image(micro):
    found = embedded(micro, views=0)
    with torch.inference_mode():
        plain = micro.encode_image(normalize_pixels(as_float(torch.from_numpy(PIXELS)), micro.mean, micro.std))
        close(found.image[:, 0], plain)
        for k, own in enumerate(CAPTIONS):
            close(found.text[found.text_pair == k], micro.encode_text(micro.tokenize(own)))
    assert plain.std(dim=0).min() > 1e-4  # the images are told apart


def test_views_are_those_of_the_pair_and_the_view(micro):
    found = embedded(micro, views=3)
    for view in range(3):
        crops = draw_crops(
            pair_keys(UIDS),
            seed=derive_seed(0, "embed view", view),
            size=32,
            scale=CROPS.crop_scale,
            ratio=CROPS.crop_ratio,
            flip=CROPS.flip,
        )
        with torch.inference_mode():
            pixels = render(torch.from_numpy(PIXELS), crops, size=32)
            close(found.image[:, view], micro.encode_image(normalize_pixels(pixels, micro.mean, micro.std)))
    differences = (found.image[:, 0] - found.image[:, 1]).abs().amax(dim=1)
    assert differences.min() > 1e-3  # views do differ
    close(embedded(micro, views=2).image, found.image[:, :2])  # and do not depend on how many there are


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
@pytest.mark.parametrize("views", [0, 2])
def test_any_batch_size_gives_the_same(micro, batch_size, views):
    whole, split = embedded(micro, views=views), embedded(micro, views=views, batch_size=batch_size)
    close(whole.image, split.image)
    close(whole.text, split.text)
    assert torch.equal(whole.text_pair, split.text_pair)


def test_any_order_gives_the_same(micro):
    order = [4, 2, 6, 0, 5]
    whole, some = embedded(micro, views=2), embedded(micro, order, views=2, batch_size=2)
    close(some.image, whole.image[order])
    for place, k in enumerate(order):
        close(some.text[some.text_pair == place], whole.text[whole.text_pair == k])


def test_rows_choose_the_images(micro):
    # the same image under another uid has other crops, but the same plain view
    inputs = Inputs(PIXELS, np.array([3, 3]), [["a"], ["b"]], UIDS[:2])
    plain = passes.embed(micro, inputs, EmbedSection(views=0), CROPS)
    close(plain.image[0], plain.image[1])
    close(plain.image[0], embedded(micro).image[3])
    cropped = passes.embed(micro, inputs, EmbedSection(views=1), CROPS)
    assert (cropped.image[0] - cropped.image[1]).abs().max() > 1e-3


def test_model_is_left_in_evaluation_mode_and_unchanged(micro):
    encoder = OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)
    encoder.module.train()
    before, random_state = {k: v.clone() for k, v in encoder.module.state_dict().items()}, torch.get_rng_state()
    embedded(encoder, views=1)
    assert not encoder.module.training
    assert all(torch.equal(before[name], value) for name, value in encoder.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_progress_counts_every_pair_once(micro):
    done = []
    embedded(micro, batch_size=3, progress=done.append)
    assert sum(done) == 7
    assert all(0 <= count <= 3 for count in done)
    assert 0 < sum(done[:3]) < 7  # captions are passes, too


# ---- on disk


def test_save_and_load(micro, tmp_path):
    found = embedded(micro, views=2)
    folder = tmp_path / "embeddings" / "f" / "seed-0"
    files = passes.save(found, folder)
    assert [file.name for file in files] == ["image.npy", "text.npy", "text_pair.npy"]
    assert sorted(path.name for path in folder.iterdir()) == ["image.npy", "text.npy", "text_pair.npy"]
    loaded = passes.load(folder)
    assert loaded.text_edits is loaded.text_edits_pair is None
    for a, b in zip(found[:3], loaded[:3], strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_caption_edits_are_embedded_for_the_pairs_with_one_caption(micro, tmp_path):
    found, plain = embedded(micro, caption_edits=3, batch_size=4), embedded(micro)
    for a, b in zip(found[:3], plain[:3], strict=True):
        close(a, b)
    expected = {k: caption_edits(own[0], UIDS[k], count=3) for k, own in enumerate(CAPTIONS) if len(own) == 1}
    assert sorted(expected) == [0, 3, 6]
    assert found.text_edits_pair.tolist() == [k for k, texts in expected.items() for _ in texts]
    with torch.inference_mode():
        for k, texts in expected.items():
            close(found.text_edits[found.text_edits_pair == k], micro.encode_text(micro.tokenize(texts)))
    files = passes.save(found, tmp_path)
    assert [file.name for file in files[3:]] == ["text_edits.npy", "text_edits_pair.npy"]
    loaded = passes.load(tmp_path)
    assert torch.equal(found.text_edits, loaded.text_edits)
    assert torch.equal(found.text_edits_pair, loaded.text_edits_pair)
    (tmp_path / "text_edits_pair.npy").unlink()
    assert "No such file" in broken(tmp_path, "text_edits_pair")
    np.save(tmp_path / "text_edits_pair.npy", np.zeros(2, dtype=np.int64), allow_pickle=False)
    with pytest.raises(
        InputError, match=r"expected \(n, view, d\), \(m, d\) and \(m,\); for edits and wordings \(k, d\)"
    ):
        passes.load(tmp_path)


def test_where_nothing_is_edited_the_edits_are_empty(micro, tmp_path):
    captions = [["a cat", "the cat"], ["a", "b"]]
    found = passes.embed(micro, Inputs(PIXELS, np.arange(2), captions, UIDS[:2]), EmbedSection(caption_edits=2), CROPS)
    assert found.text_edits.shape == (0, 32)
    passes.save(found, tmp_path)
    assert passes.load(tmp_path).text_edits_pair.dtype == torch.int64


def broken(folder, name):
    with pytest.raises(InputError) as caught:
        passes.load(folder)
    message = str(caught.value)
    start, end = f"embeddings in {folder}: got ", ". Delete the folder and run the study again."
    assert re.fullmatch(re.escape(start) + r".+" + re.escape(end), message), message
    assert message.count("\n") == 0
    return message.removeprefix(start).removesuffix(end)


@pytest.mark.parametrize("name", ["image", "text", "text_pair"])
def test_missing_file(micro, tmp_path, name):
    passes.save(embedded(micro), tmp_path)
    (tmp_path / f"{name}.npy").unlink()
    assert broken(tmp_path, name) == f"[Errno 2] No such file or directory: '{tmp_path / name}.npy'"


@pytest.mark.parametrize("keep", [0, 5, 100, -4])
@pytest.mark.parametrize("name", ["image", "text", "text_pair"])
def test_truncated_file(micro, tmp_path, name, keep):
    file = tmp_path / f"{name}.npy"
    passes.save(embedded(micro), tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    broken(tmp_path, name)


def test_pickles_are_not_read(micro, tmp_path):
    passes.save(embedded(micro), tmp_path)
    np.save(tmp_path / "text.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "allow_pickle=False" in broken(tmp_path, "text")


def test_captions_of_about_one_length_share_a_pass(micro, monkeypatch):
    captions = [["x" * (7 * k % 11 + 1) + " " + "word " * (7 * k % 11)] for k in range(45)]
    texts = [own[0] for own in captions]
    encoder = OpenClipEncoder(micro.module, micro.config, micro._tokenizer)
    passed, encode = [], encoder.encode_text
    monkeypatch.setattr(encoder, "encode_text", lambda tokens: [passed.append(tokens.clone()), encode(tokens)][1])
    uids = [f"{k:032x}" for k in range(45)]
    found = passes.embed(
        encoder, Inputs(PIXELS, np.zeros(45, dtype=int), captions, uids), EmbedSection(batch_size=5), CROPS
    )
    with torch.inference_mode():
        for k, text in enumerate(texts):  # in the order of the pairs, not of the passes
            close(found.text[k], encode(micro.tokenize([text]))[0])
    assert found.text_pair.tolist() == list(range(45))
    lengths = [batch.shape[1] for batch in passed]
    # eight batches are sorted together, the rest is a window of its own
    assert lengths[:8] == sorted(lengths[:8])
    assert lengths[0] < lengths[7]
    assert len(lengths) == 9
    as_given = sum(micro.tokenize(texts[start : start + 5]).shape[1] for start in range(0, 45, 5))
    assert sum(lengths) < 0.8 * as_given
