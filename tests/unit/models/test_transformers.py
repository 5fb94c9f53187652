"""transformers' CLIP, SigLIP and SigLIP 2, fresh and saved: they embed as the library itself does."""

import io
import json
import pickle
import shutil
import sys

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.base.hashing import file_sha256, pair_uid
from clipmem.cli import main
from clipmem.data.decoding import Geometry, decode
from clipmem.data.views import as_float, normalize_pixels
from clipmem.models import given
from clipmem.models import transformers as adapter
from clipmem.models.protocol import DualEncoder, geometry_of
from tests import tokens
from tests.tokens import clip_model
from tests.unit.models.test_weights import Evil

CAPTIONS = [
    "a photo of the red cat",
    "",
    "Two DOGS, on green grass!",
    "ünïcode ☃ and\nlines",
    " ".join(["water under the blue sky"] * 40),
]
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("sentencepiece", reason="the extra hf is not installed")
    return pytest.importorskip("transformers", reason="the extra hf is not installed")


def configs(library, kind, words):
    text = {**TOWER, "vocab_size": words, "max_position_embeddings": 77 if kind == "clip" else 64}
    if kind == "clip":
        text |= {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
        vision = {**TOWER, "image_size": 32, "patch_size": 16}
        return library.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    text |= {"projection_size": 16, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 1}
    if kind == "siglip":
        vision = {**TOWER, "image_size": 32, "patch_size": 16}
        return library.SiglipConfig(text_config=text, vision_config=vision)
    return library.Siglip2Config(text_config=text, vision_config={**TOWER, "patch_size": 16, "num_patches": 9})


def build(library, folder, kind, tokenizer, named, seed=5):
    """Save a model of random weights with its tokenizer and processor."""
    folder.mkdir()
    words = getattr(tokens, tokenizer)(folder, **named)
    config = configs(library, kind, words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(library, type(config).__name__.replace("Config", "Model"))(config).eval()
        for parameter in model.parameters():  # biases and norms are trivial in a fresh model
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    square = {"height": 32, "width": 32}
    if True:
        photos = {
            "clip": lambda: library.CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            ),
            "siglip": lambda: library.SiglipImageProcessor(size=square),
            "siglip2": lambda: library.Siglip2ImageProcessor(),
        }[kind]()
        photos.save_pretrained(folder)
    return folder


KINDS = {
    "CLIP": ("clip", "clip", {}),
    "SigLIP": ("siglip", "siglip", {}),
    "SigLIP with a mask": ("siglip", "siglip", {"masked": True}),
    "SigLIP 2": ("siglip", "gemma", {}),
    "SigLIP 2, NaFlex": ("siglip2", "gemma", {"kind": "Siglip2Tokenizer"}),
    "SigLIP 2, NaFlex, with a mask": ("siglip2", "gemma", {"kind": "Siglip2Tokenizer", "masked": True}),
}


@pytest.fixture(scope="module")
def folders(library, tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {
        name: build(library, place / str(k), kind, tokenizer, named)
        for k, (name, (kind, tokenizer, named)) in enumerate(KINDS.items())
    }


def tensor(output):
    """Return the features: a tensor in version 4 of the library, an output with `pooler_output` in version 5."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def by_hand(library, folder, captions, photos=()):
    """Embed with the library's public calls and its own processor alone."""
    model = library.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = library.AutoProcessor.from_pretrained(folder, local_files_only=True)
    longest = model.config.text_config.max_position_embeddings
    padding = True if model.config.model_type == "clip" else "max_length"
    text = processor.tokenizer(captions, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        found = tensor(model.get_text_features(**text))
        if not photos:
            return found, None
        return found, tensor(model.get_image_features(**processor(images=list(photos), return_tensors="pt")))


def squares(size, n=3):
    values = np.random.default_rng(3).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in values]


def png(photo):
    stream = io.BytesIO()
    photo.save(stream, "PNG")
    return stream.getvalue()


def ours(encoder, photos):
    values = np.stack([decode(png(one), *geometry_of(encoder)[:1], resize_mode=encoder.resize_mode,
                              interpolation=encoder.interpolation) for one in photos])  # fmt: skip
    with torch.no_grad():
        pixels = normalize_pixels(as_float(torch.from_numpy(values)), encoder.mean, encoder.std)
        return encoder.encode_image(pixels)


@pytest.mark.parametrize("name", KINDS)
def test_embeddings_equal_the_library_s_own(library, folders, name):
    encoder = given.load(given.find(f"transformers:{folders[name]}"))
    assert isinstance(encoder, DualEncoder)
    assert not encoder.module.training
    photos = squares(encoder.image_size)
    text, image = by_hand(library, folders[name], CAPTIONS, photos)
    with torch.no_grad():
        found = encoder.encode_text(encoder.tokenize(CAPTIONS))
        alone = torch.cat([encoder.encode_text(encoder.tokenize([one])) for one in CAPTIONS])
    torch.testing.assert_close(found, text, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, text, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(encoder, photos), image, rtol=0, atol=1e-5)
    assert text.std() > 0.05
    assert image.std() > 0.05
    assert len({tuple(row) for row in text.round(decimals=4).tolist()}) == len(CAPTIONS)


@pytest.fixture(scope="module")
def scored(library, folders, tmp_path_factory):
    """Pairs scored by the command with two CLIPs; gives both folders, photos, captions and the table by pair."""
    place = tmp_path_factory.mktemp("scored")
    models = folders["CLIP"], build(library, place / "other", *KINDS["CLIP"], seed=6)
    photos = squares(32, 12)
    captions = [f"{'red ' * (k % 3)}cat number {k}" for k in range(12)]
    images = [png(photo) for photo in photos]
    for name, rows in (("pairs", slice(8)), ("bank", slice(8, 12))):
        pl.DataFrame({"image": images[rows], "captions": [[one] for one in captions[rows]]}).write_parquet(
            place / f"{name}.parquet"
        )
    arguments = ["score", "--target", f"transformers:{models[0]}", "--reference", f"transformers:{models[1]}"]
    arguments += ["--data", f"{place / 'pairs.parquet'}", "--bank", f"{place / 'bank.parquet'}"]
    main([*arguments, "--out", f"{place / 'scores.parquet'}"])
    table = {row["uid"]: row for row in pl.read_parquet(place / "scores.parquet").to_dicts()}
    return models, photos, captions, [table[pair_uid(images[k], [captions[k]])] for k in range(8)]


def test_scores_of_the_command_equal_the_library_s_features(library, scored):
    models, photos, captions, rows = scored
    aligned = []
    for folder, side in zip(models, "fg", strict=True):
        text, image = (
            torch.nn.functional.normalize(one.double()) for one in by_hand(library, folder, captions, photos)
        )
        similar = image @ text.T
        positive, image_bank, text_bank = similar[:8, :8].diag(), similar[:8, 8:].mean(1), similar[8:, :8].mean(0)
        for name, own in (("positive", positive), ("image_bank", image_bank), ("text_bank", text_bank)):
            np.testing.assert_allclose([row[f"{side}_{name}"] for row in rows], own, rtol=0, atol=1e-5)
        aligned.append(positive - image_bank - text_bank)
    expected = (aligned[0] - aligned[1]).numpy()
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose([row["clipmem"] for row in rows], expected, rtol=0, atol=1e-5)


def test_similarity_is_the_clip_score_of_torchmetrics(library, scored):
    metrics = pytest.importorskip("torchmetrics.functional.multimodal", reason="the extra bench is not installed")
    models, photos, captions, rows = scored

    class Features(library.CLIPModel):
        """Gives features as tensors, as the library did until version 5."""

        def get_image_features(self, *arguments):
            return tensor(super().get_image_features(*arguments))

        def get_text_features(self, *arguments):
            return tensor(super().get_text_features(*arguments))

    processor = library.AutoProcessor.from_pretrained(models[0], local_files_only=True)
    for folder, side in zip(models, "fg", strict=True):
        model = Features.from_pretrained(folder, local_files_only=True).eval()
        ours = [row[f"{side}_positive"] for row in rows]
        assert max(map(abs, ours)) > 0.01
        for k, similarity in enumerate(ours):
            pixels = torch.from_numpy(np.array(photos[k])).permute(2, 0, 1)
            theirs = metrics.clip_score(pixels, captions[k], lambda model=model: (model, processor))
            assert theirs.item() == pytest.approx(100 * max(similarity, 0), abs=1e-3)


def test_what_each_kind_wants_of_images(folders):
    found = {name: given.load(given.find(f"transformers:{folder}")) for name, folder in folders.items()}
    assert geometry_of(found["CLIP"]) == Geometry(32, "shortest", "bicubic")
    assert geometry_of(found["SigLIP"]) == geometry_of(found["SigLIP 2"]) == Geometry(32, "squash", "bicubic")
    assert geometry_of(found["SigLIP 2, NaFlex"]) == Geometry(256, "squash", "bilinear")
    assert found["CLIP"].mean[0] == pytest.approx(0.4815, abs=1e-4)
    assert found["SigLIP"].mean == found["SigLIP"].std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_images_of_other_shapes_equal_the_library_s_within_two_levels(library, folders, name):
    encoder = given.load(given.find(f"transformers:{folders[name]}"))
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)).resize((64, 96))
    processor = library.AutoProcessor.from_pretrained(folders[name], local_files_only=True)
    theirs = processor(images=smooth, return_tensors="pt")["pixel_values"][0]
    mine = decode(png(smooth), encoder.image_size, resize_mode=encoder.resize_mode)
    mine = normalize_pixels(as_float(torch.from_numpy(mine)[None]), encoder.mean, encoder.std)[0]
    assert (mine - theirs).abs().max() <= 2.01 / 255 / min(encoder.std)


def test_padding_of_siglip_is_not_trimmed_and_a_mask_is_kept(folders):
    plain, masked = (given.load(given.find(f"transformers:{folders[name]}")) for name in list(KINDS)[1:3])
    rows = plain.tokenize(["red cat"])
    assert rows.shape == (1, 64)
    assert (rows[0, 10:] == 1).all()
    with_mask = masked.tokenize(["red cat"])
    assert torch.equal(torch.where(with_mask < 0, -1 - with_mask, with_mask), rows)
    assert (with_mask[0, 10:] == -2).all()
    with torch.no_grad():
        assert (plain.encode_text(rows) - masked.encode_text(with_mask)).abs().max() > 1e-3


def test_siglip_2_lowers_case_as_its_tokenizer_does(folders):
    fixed, naflex = (given.load(given.find(f"transformers:{folders[name]}")) for name in list(KINDS)[3:5])
    assert torch.equal(naflex.tokenize(["A CAB"]), naflex.tokenize(["a cab"]))
    assert not torch.equal(fixed.tokenize(["A CAB"]), fixed.tokenize(["a cab"]))


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_weights_without_safetensors_are_read_as_weights_only(library, folders, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(folders[name], folder)
    safe = given.load(given.find(f"transformers:{folder}"))
    torch.save(safe.module.state_dict(), folder / "pytorch_model.bin")
    assert set(given.content(given.find(f"transformers:{folder}"))) >= {"config.json", "model.safetensors"}
    (folder / "model.safetensors").unlink()
    found = given.find(f"transformers:{folder}")
    assert given.content(found)["pytorch_model.bin"] == file_sha256(folder / "pytorch_model.bin")
    again = given.load(found)
    assert all(torch.equal(value, again.module.state_dict()[k]) for k, value in safe.module.state_dict().items())


def test_a_malicious_pickle_runs_nothing(folders, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "it-ran"
    shutil.copytree(folders["CLIP"], folder)
    (folder / "model.safetensors").unlink()
    for write in (
        lambda path: torch.save({"a": Evil(mark)}, path),
        lambda path: torch.save({"a": Evil(mark)}, path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(pickle.dumps({"a": Evil(mark)})),
    ):
        write(folder / "pytorch_model.bin")
        with pytest.raises(InputError, match="got files that do not load"):
            given.load(given.find(f"transformers:{folder}"))
        assert not mark.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert mark.exists()  # it would have


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_not_run(folders, tmp_path, file):
    folder, mark = tmp_path / "model", tmp_path / "it-ran"
    shutil.copytree(folders["SigLIP"], folder)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    document = json.loads((folder / file).read_text())
    classes = {"AutoModel": "own.Own", "AutoTokenizer": ["own.Own", None], "AutoConfig": "own.Own"}
    (folder / file).write_text(json.dumps(document | {"auto_map": classes}))
    with pytest.raises(InputError) as error:
        given.load(given.find(f"transformers:{folder}"))
    assert str(error.value) == (
        f"model folder {folder}: got {file} with auto_map, which names custom code, expected classes of "
        "transformers. Remove that key if transformers has the class: custom code is never run."
    )
    assert not mark.exists()


def test_half_precision_weights_are_computed_in_full(library, folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folders["SigLIP"], folder)
    half = library.AutoModel.from_pretrained(folder).half()
    half.save_pretrained(folder)
    encoder = given.load(given.find(f"transformers:{folder}"))
    assert {p.dtype for p in encoder.module.parameters()} == {torch.float32}
    assert all(
        torch.equal(value, half.state_dict()[name].float()) for name, value in encoder.module.state_dict().items()
    )


def changed(folders, tmp_path, name, file, change):
    folder = tmp_path / "model"
    shutil.copytree(folders[name], folder)
    document = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(change(document)))
    return folder


IMAGES = "preprocessor_config.json"
ODD = {
    "larger, then cropped": (
        {"size": {"shortest_edge": 40}},
        "got images scaled to {'shortest_edge': 40} and cropped to {'height': 32, 'width': 32} for a model of 32, "
        "expected images scaled to the model's size and cropped to a square. ",
    ),
    "not square": (
        {"size": {"height": 32, "width": 48}, "do_center_crop": False},
        "got images scaled to {'height': 32, 'width': 48} for a model of 32, "
        "expected images scaled to the model's size and cropped to a square. ",
    ),
    "not scaled": (
        {"do_resize": False},
        "got {'do_resize': False, 'resample': 3, 'do_rescale': True, 'rescale_factor': 0.00392156862745098}, "
        "expected resample 2 (bilinear) or 3 (bicubic), values divided by 255. ",
    ),
    "weighed otherwise": (
        {"resample": 1},
        "got {'do_resize': True, 'resample': 1, 'do_rescale': True, 'rescale_factor': 0.00392156862745098}, "
        "expected resample 2 (bilinear) or 3 (bicubic), values divided by 255. ",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_images_that_cannot_be_made(folders, tmp_path, case):
    change, message = ODD[case]
    folder = changed(folders, tmp_path, "CLIP", IMAGES, lambda old: old | change)
    with pytest.raises(InputError) as error:
        given.load(given.find(f"transformers:{folder}"))
    assert str(error.value) == f"model folder {folder}: {message}Use a model with supported preprocessing."


def test_images_in_the_processor_s_own_file_come_first(library, folders, tmp_path):
    folder = changed(folders, tmp_path, "CLIP", IMAGES, lambda old: old)
    nested = {"image_processor": json.loads((folder / IMAGES).read_text()) | {"resample": 2, "do_normalize": False}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    encoder = given.load(given.find(f"transformers:{folder}"))
    assert (encoder.interpolation, encoder.mean, encoder.std) == ("bilinear", (0, 0, 0), (1, 1, 1))
    (folder / "processor_config.json").write_text("{}")
    assert given.load(given.find(f"transformers:{folder}")).interpolation == "bicubic"
    (folder / "processor_config.json").unlink()
    (folder / IMAGES).unlink()
    usual = given.load(given.find(f"transformers:{folder}"))
    assert geometry_of(usual) == Geometry(32)
    assert usual.mean[0] == pytest.approx(0.4815, abs=1e-4)


def test_other_models_of_transformers(folders, tmp_path):
    folder = changed(folders, tmp_path, "CLIP", "config.json", lambda old: old | {"model_type": "align"})
    with pytest.raises(InputError) as error:
        given.load(given.find(f"transformers:{folder}"))
    assert str(error.value) == (
        f"model folder {folder}: got model_type 'align' in its config.json, expected one of clip, siglip, siglip2. "
        "Choose a supported model."
    )


def test_weights_that_lack_a_parameter_are_not_drawn_at_random(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = changed(folders, tmp_path, "CLIP", IMAGES, lambda old: old)
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"the weights lack 1 parameters: visual_projection\.weight"):
        given.load(given.find(f"transformers:{folder}"))


CONFIG = {
    "projection_dim": 12,
    "text_config": {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 39, "bos_token_id": 38,
    },
    "vision_config": {
        "image_size": 32, "patch_size": 16, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
}  # fmt: skip


def token_rows(captions):
    return [[38, *(1 + sum(map(ord, word)) % 36 for word in text.split()), 39] for text in captions]


def test_missing_library_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"^transformers models: got no package transformers, expected the extra hf\. I"
    ):
        adapter.load(tmp_path)


def test_no_config(tmp_path):
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    with pytest.raises(InputError, match=r"got no config\.json\. Give a folder saved by transformers\.$"):
        adapter.load(tmp_path)


@pytest.fixture
def encoder():
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    return clip_model(CONFIG, token_rows, seed=0)


def test_it_is_a_dual_encoder(encoder):
    assert isinstance(encoder, DualEncoder)
    assert encoder.image_size == 32
    assert encoder.logit_scale().item() == pytest.approx(1 / 0.07, rel=1e-3)


@torch.no_grad()
def test_padding_changes_nothing(encoder):
    ids = encoder.tokenize(["one", "two three four five"])
    assert ids[0].tolist()[3:] == [0, 0, 0]
    both = encoder.encode_text(ids)
    torch.testing.assert_close(both[0], encoder.encode_text(encoder.tokenize(["one"]))[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_saved_folder_loads(encoder, tmp_path):
    files = encoder.save(tmp_path / "model")
    assert {"config.json", "model.safetensors"} <= {file.name for file in files}
    before = torch.get_rng_state()
    again = adapter.load(tmp_path / "model", token_rows)
    assert torch.equal(torch.get_rng_state(), before)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.encode_image(pixels), encoder.encode_image(pixels))
    with pytest.raises(InputError, match=r"got no tokenizer, expected one of tokenizer\.json, .*\. Save the "):
        adapter.load(tmp_path / "model")


def test_a_folder_without_weights_is_refused(encoder, tmp_path):
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"files that do not load"):
        adapter.load(tmp_path / "model", token_rows)
