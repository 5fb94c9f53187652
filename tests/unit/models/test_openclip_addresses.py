"""Models of open_clip by address: checkpoints, towers of every kind, preprocessing, QuickGELU, the hub's cache."""

import json
import shutil
import socket
import warnings

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

import clipmem
from clipmem.base.errors import ClipmemWarning, InputError, shorten
from clipmem.base.hashing import file_sha256, json_sha256
from clipmem.data.decoding import Geometry, decode
from clipmem.data.views import as_float, normalize_pixels
from clipmem.models import given, openclip
from clipmem.models.protocol import geometry_of
from tests import tokens
from tests.tiny import tiny_recipe, write_parquet
from tests.unit.models.test_openclip import CAPTIONS, PLAIN, variant
from tests.unit.models.test_transformers import png
from tests.unit.models.test_weights import evil_files

MICRO = "clipmem-micro"


def refused(name, *, find=True):
    with pytest.raises(InputError) as error:
        given.find(name) if find else given.load(given.find(name))
    return str(error.value)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """Nothing is fetched unless asked for: a connection that is tried fails the test."""

    def tried(*_args, **_kwargs):
        raise AssertionError("somebody tried to connect")

    monkeypatch.setattr(socket.socket, "connect", tried)
    monkeypatch.setattr(socket, "getaddrinfo", tried)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.delenv("CLIPMEM_DOWNLOAD", raising=False)


def write_folder(folder, config, *, preprocess=None, seed=0, files=()):
    """Save a model of open_clip by open_clip's and safetensors' own calls."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    if isinstance(model.logit_bias, torch.nn.Parameter):
        torch.nn.init.constant_(model.logit_bias, -7.0)
    if hasattr(model, "text_decoder"):  # open_clip leaves this matrix as it finds the memory
        torch.nn.init.normal_(model.text_decoder.text_projection, generator=torch.Generator().manual_seed(seed))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return model.eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# ---- towers

RESNET = variant(vision_cfg={"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None})
TIMM = variant(
    vision_cfg={"timm_model_name": "resnet10t", "timm_model_pretrained": False, "timm_pool": "avg",
                "timm_proj": "linear", "image_size": 64}
)  # fmt: skip
TIMM_VIT = variant(
    custom_text=True,
    init_logit_bias=-10,
    vision_cfg={"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False, "timm_pool": "map",
                "timm_proj": "none", "image_size": 224},
    embed_dim=192,
    text_cfg={"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "context_length": 16},
)  # fmt: skip
COCA = {
    "embed_dim": 16,
    "vision_cfg": {**PLAIN["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {**PLAIN["text_cfg"], "context_length": 20, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "custom_text": True,
}
TOWERS = {"ResNet": RESNET, "timm ResNet": TIMM, "timm ViT, SigLIP's text tower": TIMM_VIT, "CoCa": COCA}


@pytest.mark.parametrize("kind", TOWERS)
def test_embeddings_equal_open_clip_s_own(tmp_path, kind):
    model = write_folder(tmp_path / "model", TOWERS[kind])
    encoder = given.load(given.find(str(tmp_path / "model")))
    assert type(encoder.module) is type(model)
    assert not encoder.module.training
    size = TOWERS[kind]["vision_cfg"]["image_size"]
    assert encoder.image_size == size
    pixels, texts = noise(2, 3, size, size), open_clip.get_tokenizer(f"local-dir:{tmp_path / 'model'}")(CAPTIONS)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.encode_image(pixels), model.encode_image(pixels), rtol=0, atol=1e-5)
        found = encoder.encode_text(encoder.tokenize(CAPTIONS))
        torch.testing.assert_close(found, model.encode_text(texts), rtol=0, atol=1e-5)
        one = encoder.encode_text(encoder.tokenize(["cat"]))
        torch.testing.assert_close(one, model.encode_text(texts[1:2]), rtol=0, atol=1e-5)
    assert found.std() > 1e-3


@pytest.fixture
def unfilled_is_nan():
    """Whatever is not initialized is NaN instead of what the memory held."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("kind", TOWERS)
def test_all_weights_of_a_new_model_depend_on_the_seed(tmp_path, kind, unfilled_is_nan):
    name = str(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(TOWERS[kind]))
    weights = [openclip.create(name, seed=seed).module.state_dict() for seed in (0, 0, 1)]
    for key, weight in weights[0].items():
        assert weight.isfinite().all(), key
        assert torch.equal(weight, weights[1][key]), key
    assert not all(torch.equal(weight, weights[2][key]) for key, weight in weights[0].items())


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="the extra hf is not installed")


SIGLIP_TEXT = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "context_length": 24}


@pytest.mark.parametrize("kind", ["t5", "gemma"])
def test_siglip_with_its_own_tokenizer(transformers, tmp_path, kind):
    folder = tmp_path / "model"
    folder.mkdir()
    if kind == "t5":
        pytest.importorskip("sentencepiece", reason="the extra hf is not installed")
        words = tokens.siglip(folder)
    else:
        words = tokens.gemma(folder)
    text = {**SIGLIP_TEXT, "vocab_size": words, "hf_tokenizer_name": "timm/some-siglip",
            "tokenizer_kwargs": {"clean": "canonicalize"}}  # fmt: skip
    config = variant(custom_text=True, init_logit_bias=-10, text_cfg=text)
    model = write_folder(folder, config, preprocess={"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3})
    encoder = given.load(given.find(str(folder)))
    texts = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    with torch.inference_mode():
        found = encoder.encode_text(encoder.tokenize(CAPTIONS))
        torch.testing.assert_close(found, model.encode_text(texts), rtol=0, atol=1e-5)
        one = encoder.encode_text(encoder.tokenize(["Cat!"]))
        torch.testing.assert_close(one, model.encode_text(texts[1:2]), rtol=0, atol=1e-5)
    assert encoder.module.logit_bias.item() == -7
    assert (encoder.resize_mode, encoder.mean) == ("squash", (0.5, 0.5, 0.5))
    # saved by us, and read by open_clip with the tokenizer
    encoder.save(tmp_path / "again")
    again = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'again'}")
    assert torch.equal(again(CAPTIONS), texts)
    for name in tokens_of(folder):
        (folder / name).unlink()
    message = refused(str(folder), find=False)
    assert message.startswith(
        f"model {shorten(str(folder))}: got no tokenizer in {folder}, expected one of tokenizer.json, "
    )
    assert message.endswith("Copy the tokenizer files of timm/some-siglip into the folder.")


def tokens_of(folder):
    return [file.name for file in folder.iterdir() if "token" in file.name or file.name == "spiece.model"]


def text_tower(transformers, folder):
    """Save the config of a small RoBERTa, and a tokenizer that pads with 1 as it does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = ["<s>", "<pad>", "</s>", "<unk>", *(chr(k) for k in range(33, 127)), "Ġ"]
    config = transformers.RobertaConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=40,
    )  # fmt: skip
    config.save_pretrained(folder)
    made = Tokenizer(models.BPE({name: k for k, name in enumerate(names)}, [], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>",
               "unk_token": "<unk>", "mask_token": "<unk>"}  # fmt: skip
    document = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(document))


def with_text_tower(folder):
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler", "context_length": 20}  # fmt: skip
    return {**PLAIN, "text_cfg": text}


def test_a_text_tower_of_transformers(transformers, tmp_path):
    tower, folder = tmp_path / "tower", tmp_path / "model"
    text_tower(transformers, tower)
    folder.mkdir()
    for name in tokens_of(tower):
        shutil.copy(tower / name, folder)
    model = write_folder(folder, with_text_tower(tower))
    encoder = given.load(given.find(str(folder)))
    texts = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    assert (texts[0] == 1).any()
    with torch.inference_mode():
        found = encoder.encode_text(encoder.tokenize(CAPTIONS))
        torch.testing.assert_close(found, model.encode_text(texts), rtol=0, atol=1e-5)
    assert set(given.content(given.find(str(folder)))) == {
        *("config.json", "open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"),
        "tokenizer_config.json",
    }


# ---- nothing of a model's own is run


def test_a_tokenizer_that_would_run_code(transformers, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "it-ran"
    folder.mkdir()
    words = tokens.gemma(folder)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    document = json.loads((folder / "tokenizer_config.json").read_text())
    hostile = document | {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(hostile))
    text = {**SIGLIP_TEXT, "vocab_size": words, "hf_tokenizer_name": "x/y"}
    write_folder(folder, variant(custom_text=True, text_cfg=text))
    assert refused(str(folder), find=False) == (
        f"model {shorten(str(folder))}: got tokenizer_config.json with auto_map, which names custom "
        "code, expected classes of transformers. Remove that key if transformers has the class: custom "
        "code is never run."
    )
    trusting = {**text, "tokenizer_kwargs": {"trust_remote_code": True}}
    write_folder(folder, variant(custom_text=True, text_cfg=trusting))
    assert refused(str(folder), find=False) == (
        f"model {shorten(str(folder))}: got a config with tokenizer_kwargs.trust_remote_code, expected a tokenizer "
        "of transformers. Remove that key: custom code is never run."
    )
    assert not mark.exists()


def test_malicious_pickles_run_nothing(tmp_path):
    (tmp_path / "files").mkdir()
    mark = tmp_path / "it-ran"
    for path in evil_files(tmp_path / "files", mark):
        assert "got " in refused(f"{MICRO}@{path}", find=False)
        assert "got " in refused(f"{MICRO}@{path}#ema", find=False)
        folder = tmp_path / f"as-{path.name}"
        write_folder(folder, PLAIN)
        (folder / "open_clip_model.safetensors").unlink()
        shutil.copy(path, folder / f"open_clip_pytorch_model{path.suffix}")
        assert "got " in refused(str(folder), find=False)
        assert not mark.exists(), path


# ---- images


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_made_as_open_clip_makes_them(tmp_path, mode, interpolation):
    wanted = {"resize_mode": mode, "interpolation": interpolation, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    write_folder(tmp_path, PLAIN, preprocess=wanted)
    encoder = given.load(given.find(str(tmp_path)))
    assert geometry_of(encoder) == Geometry(16, mode, interpolation)
    transform = image_transform_v2(PreprocessCfg(size=16, **wanted), is_train=False)
    rng = np.random.default_rng(0)
    for shape in ((16, 16), (40, 24), (25, 60), (7, 9), (16, 31), (300, 20), (1, 1)):
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        square = decode(png(image), 16, resize_mode=mode, interpolation=interpolation)
        found = normalize_pixels(as_float(torch.from_numpy(square)[None]), encoder.mean, encoder.std)[0]
        torch.testing.assert_close(found, transform(image), rtol=0, atol=1e-6)


def test_images_that_are_no_squares(tmp_path):
    odd = variant(vision_cfg={**PLAIN["vision_cfg"], "image_size": [16, 24]})
    write_folder(tmp_path, odd)
    assert refused(str(tmp_path), find=False) == (
        f"model {shorten(str(tmp_path))}: got images of 16 x 24 pixels, expected square images. "
        "Use a model with square images."
    )
    square = variant(vision_cfg={**PLAIN["vision_cfg"], "image_size": [16, 16]})
    write_folder(tmp_path, square)
    assert given.load(given.find(str(tmp_path))).image_size == 16
    path = tmp_path / "own.json"
    path.write_text(json.dumps(odd))
    with pytest.raises(InputError) as error:
        openclip.geometry_of_config(str(path))
    assert str(error.value) == (
        "model: got images of 16 x 24 pixels, expected square images. Use a model with square images."
    )


def test_a_json_config_says_what_images_it_wants(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"model_cfg": PLAIN, "preprocess_cfg": {"resize_mode": "squash", "mean": [0.5] * 3}}))
    assert openclip.geometry_of_config(str(path)) == geometry_of(openclip.create(str(path), seed=0))
    assert openclip.geometry_of_config(str(path)) == Geometry(16, "squash")
    assert openclip.geometry_of_config(MICRO) == Geometry(32)


def test_a_study_of_a_model_whose_tokenizer_is_not_here_does_not_begin(tmp_path):
    write_parquet(tmp_path / "pairs.parquet", 120)
    recipe = tiny_recipe("model.name=ViT-B-16-SigLIP", "data.source=parquet", f"data.path={tmp_path}/pairs.parquet")
    with pytest.raises(InputError) as error:
        clipmem.run(recipe, tmp_path / "run")
    assert str(error.value).startswith(
        "[model] name = 'ViT-B-16-SigLIP': its tokenizer: got no tokenizer.json or spiece.model or "
    )
    assert str(error.value).endswith(
        "expected files on this machine. Set CLIPMEM_DOWNLOAD=1 to download it, or run: "
        "hf download timm/ViT-B-16-SigLIP."
    )
    assert not (tmp_path / "run").exists()


# ---- checkpoints


@pytest.fixture(scope="module")
def micro():
    encoder = openclip.create(MICRO, seed=3)
    encoder.module.eval()
    return encoder


def save_run(folder, micro, **more):
    """Save what open_clip's trainer saves, where it does."""
    path = folder / "logs" / more.get("name", "run") / "checkpoints" / "epoch_2.pt"
    path.parent.mkdir(parents=True)
    state = {f"module.{name}": value for name, value in micro.module.state_dict().items()}
    optimizer = torch.optim.AdamW(micro.module.parameters()).state_dict()
    torch.save({"epoch": 2, "name": "run", "state_dict": state, "optimizer": optimizer} | more, path)
    return path


def same_embeddings(a, b):
    with torch.inference_mode():
        return torch.equal(a.encode_text(a.tokenize(CAPTIONS)), b.encode_text(b.tokenize(CAPTIONS)))


def test_a_training_checkpoint(tmp_path, micro, monkeypatch):
    path = save_run(tmp_path, micro)
    monkeypatch.chdir(tmp_path)
    found = given.find(f"{MICRO}@logs/run/checkpoints/epoch_2.pt")
    assert found.address == f"{MICRO}@{path}"
    assert given.find(found.address).weights == found.weights == path
    assert same_embeddings(given.load(found), micro)
    assert given.content(found) == {
        "config of clipmem-micro": json_sha256(openclip.settings_of(MICRO)),
        "epoch_2.pt": file_sha256(path),
    }


def test_averaged_weights(tmp_path, micro):
    other = openclip.create(MICRO, seed=9)
    path = save_run(tmp_path, micro, state_dict_ema=other.module.state_dict())
    plain, averaged = given.find(f"{MICRO}@{path}"), given.find(f"{MICRO}@{path}#ema")
    assert same_embeddings(given.load(plain), micro)
    assert same_embeddings(given.load(averaged), other)
    assert given.content(plain) != given.content(averaged)
    assert given.find(averaged.address) == averaged._replace(name=averaged.address)


def test_a_checkpoint_of_a_json_config(tmp_path, monkeypatch):
    model = write_folder(tmp_path / "model", PLAIN)
    (tmp_path / "own@x.json").write_text(
        json.dumps({"model_cfg": PLAIN, "preprocess_cfg": {"interpolation": "bilinear"}})
    )
    monkeypatch.chdir(tmp_path)
    found = given.find("own@x.json@model/open_clip_model.safetensors")
    assert found.address == f"{tmp_path}/own@x.json@{tmp_path}/model/open_clip_model.safetensors"
    encoder = given.load(found)
    assert encoder.interpolation == "bilinear"
    assert all(torch.equal(v, encoder.module.state_dict()[k]) for k, v in model.state_dict().items())
    assert set(given.content(found)) == {"config of own@x.json", "open_clip_model.safetensors"}


def test_weights_of_another_architecture(tmp_path, micro):
    path = save_run(tmp_path, micro)
    message = refused(f"clipmem-tiny@{path}", find=False)
    assert message.startswith(f"model {shorten(f'clipmem-tiny@{path}')}: ")
    assert "got files that do not load (" in message
    assert message.endswith(
        ", expected weights of clipmem-tiny. Check that the name is that of the training run, or give a JSON config "
        "instead."
    )


def test_position_embeddings_of_another_size_are_not_scaled(tmp_path):
    write_folder(tmp_path / "model", PLAIN)
    larger = variant(vision_cfg={**PLAIN["vision_cfg"], "image_size": 32})
    (tmp_path / "larger.json").write_text(json.dumps(larger))
    name = f"{tmp_path / 'larger.json'}@{tmp_path / 'model' / 'open_clip_model.safetensors'}"
    assert "size mismatch for visual.positional_embedding" in refused(name, find=False)


def test_a_folder_with_weights_that_are_no_safetensors(tmp_path):
    model = write_folder(tmp_path, PLAIN)
    (tmp_path / "open_clip_model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    found = given.find(f"local-dir:{tmp_path}")
    assert set(given.content(found)) == {"open_clip_config.json", "open_clip_pytorch_model.bin"}
    loaded = given.load(found).module.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in model.state_dict().items())


# ---- QuickGELU


def warned(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given.load(given.find(name))
    return [str(one.message) for one in caught if issubclass(one.category, ClipmemWarning)]


def test_a_checkpoint_whose_names_speak_of_quickgelu(tmp_path, micro):
    quiet = save_run(tmp_path / "0", micro)
    assert warned(f"{MICRO}@{quiet}") == []  # nothing says so: it cannot be known
    path = save_run(tmp_path / "1", micro, name="2024_01_01-model_ViT-B-32-quickgelu-lr_0.001")
    [text] = warned(f"{MICRO}@{path}")
    assert text.endswith(
        "'2024_01_01-model_ViT-B-32-quickgelu-lr_0.001' suggests that it was trained with QuickGELU, which "
        "clipmem-micro does not have. If so, its embeddings are wrong: use clipmem-micro-quickgelu instead."
    )
    renamed = shutil.copy(quiet, tmp_path / "vit_b_32-quickgelu-laion400m.pt")
    assert len(warned(f"{MICRO}@{renamed}")) == 1
    for line, count in (("force_quick_gelu: True", 1), ("force_quick_gelu: False", 0), ("model: X-quickgelu", 1)):
        (quiet.parent.parent / "params.txt").write_text(f"accum_freq: 1\n{line}\n")
        assert len(warned(f"{MICRO}@{quiet}")) == count, line


def test_an_architecture_with_quickgelu_is_not_warned_about(tmp_path):
    config = variant(quick_gelu=True)
    write_folder(tmp_path, config)
    (tmp_path / "x-quickgelu.json").write_text(json.dumps(config))
    weights = shutil.copy(tmp_path / "open_clip_model.safetensors", tmp_path / "x-quickgelu.safetensors")
    assert warned(f"{tmp_path / 'x-quickgelu.json'}@{weights}") == []
    (tmp_path / "x.json").write_text(json.dumps(PLAIN))
    [text] = warned(f"{tmp_path / 'x.json'}@{weights}")
    assert text.endswith("If so, its embeddings are wrong: use a config with quick_gelu: true instead.")
