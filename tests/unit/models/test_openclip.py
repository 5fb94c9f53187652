"""The open_clip adapter: fresh weights, saved folders, and a text pass on trimmed captions that stays exact."""

import copy
import json
import shutil

import open_clip
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.models import names, openclip
from clipmem.models.openclip import CONFIG_FILE, WEIGHTS_FILE, OpenClipEncoder, contrastive_loss, trim
from clipmem.models.protocol import DualEncoder

MICRO = "clipmem-micro"
CAPTIONS = [
    "",
    "cat",
    "a red square",
    "!",
    "a photo of a !!! dog; two cats, and (perhaps) a bird",
    " ".join(f"word{i}" for i in range(60)),
]

# small configs written by hand: one a kind of text tower
PLAIN = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def variant(**changes):
    config = copy.deepcopy(PLAIN)
    config["text_cfg"].update(changes.pop("text_cfg", {}))
    return {**config, **changes}


VARIANTS = {
    "plain": variant(),
    "quick gelu, biased projection": variant(quick_gelu=True, text_cfg={"proj_bias": True}),
    "no projection": variant(text_cfg={"proj_type": "none"}),
    "eos pooling": variant(text_cfg={"pool_type": "eos", "eos_id": 49407}),
    "custom text": variant(custom_text=True),
    "custom text, not causal": variant(custom_text=True, text_cfg={"no_causal_mask": True}),
    "not causal": variant(text_cfg={"no_causal_mask": True}),
    "last pooling": variant(text_cfg={"pool_type": "last"}),
}
NOT_EXACT = ("custom text, not causal", "not causal", "last pooling")


def state(encoder):
    return {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}


def same_state(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def images(n, size, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def micro():
    encoder = openclip.create(MICRO, seed=3)
    encoder.module.eval()
    return encoder


@pytest.fixture(scope="module")
def saved(micro, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    files = micro.save(folder)
    assert files == [folder / CONFIG_FILE, folder / WEIGHTS_FILE]
    return folder


def build(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    encoder = openclip.create(str(path), seed=0)
    encoder.module.eval()
    return encoder


# ---- fresh weights


def test_fresh_weights_depend_on_the_seed_alone(micro):
    torch.manual_seed(99)
    torch.rand(7)
    again = openclip.create(MICRO, seed=3)
    assert same_state(state(micro), state(again))
    other = state(openclip.create(MICRO, seed=4))
    drawn = [name for name, tensor in state(micro).items() if tensor.numel() > 1 and tensor.std() > 0]
    assert len(drawn) > 10
    assert not any(torch.equal(state(micro)[name], other[name]) for name in drawn)


def test_create_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    openclip.create(MICRO, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_load_leaves_the_random_state_alone(saved):
    before = torch.get_rng_state()
    openclip.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_second_model_leaves_the_first_alone(micro):
    tokens, pixels = micro.tokenize(CAPTIONS), images(2, 32)
    with torch.inference_mode():
        text, image = micro.encode_text(tokens), micro.encode_image(pixels)
        other = openclip.create(MICRO, seed=8)
        other.compact_vocabulary(other.tokenize(["cat"]))
        other.encode_text(other.tokenize(["cat"]))
        assert torch.equal(micro.encode_text(micro.tokenize(CAPTIONS)), text)
        assert torch.equal(micro.encode_image(pixels), image)


def test_is_a_dual_encoder(micro):
    assert isinstance(micro, DualEncoder)
    assert not isinstance(micro.module, DualEncoder)
    assert (micro.image_size, len(micro.mean), len(micro.std)) == (32, 3, 3)
    assert micro.logit_scale().item() == pytest.approx(1 / 0.07)


# ---- saved folders


def test_load_gives_back_the_same_bits(micro, saved):
    loaded = openclip.load(saved)
    assert same_state(state(loaded), state(micro))
    assert (loaded.image_size, loaded.mean, loaded.std) == (micro.image_size, micro.mean, micro.std)
    tokens = micro.tokenize(CAPTIONS)
    assert torch.equal(loaded.tokenize(CAPTIONS), tokens)
    loaded.module.eval()
    with torch.inference_mode():
        assert torch.equal(loaded.encode_text(tokens), micro.encode_text(tokens))


def test_saving_twice_gives_the_same_files(micro, saved, tmp_path):
    for file in openclip.load(saved).save(tmp_path):
        assert file.read_bytes() == (saved / file.name).read_bytes()


def test_plain_open_clip_loads_the_folder_and_agrees(micro, saved):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{saved}")
    model.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{saved}")(CAPTIONS)
    assert tokens.shape == (len(CAPTIONS), 24)
    pixels = images(3, 32)
    with torch.inference_mode():
        torch.testing.assert_close(micro.encode_image(pixels), model.encode_image(pixels), rtol=0, atol=1e-5)
        full = model.encode_text(tokens)
        torch.testing.assert_close(micro.encode_text(micro.tokenize(CAPTIONS)), full, rtol=0, atol=1e-5)
        for caption, row in zip(CAPTIONS, full, strict=True):
            alone = micro.encode_text(micro.tokenize([caption]))[0]
            torch.testing.assert_close(alone, row, rtol=0, atol=1e-5)
    assert full.std() > 1e-3  # equal zeros would agree as well
    mean_of_transform = next(step.mean for step in transform.transforms if hasattr(step, "mean"))
    assert tuple(mean_of_transform) == micro.mean


@pytest.mark.parametrize(
    ("removed", "got"),
    [
        ([CONFIG_FILE], f"no {CONFIG_FILE}"),
        ([WEIGHTS_FILE], f"no {WEIGHTS_FILE}"),
        ([CONFIG_FILE, WEIGHTS_FILE], f"no {CONFIG_FILE} and no {WEIGHTS_FILE}"),
    ],
)
def test_load_names_what_is_missing(saved, tmp_path, removed, got):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(InputError) as caught:
        openclip.load(folder)
    assert (caught.value.what, caught.value.got) == (f"model folder {folder}", got)


# ---- trimmed captions


def test_trim():
    tokens = torch.tensor([[5, 0, 7, 0, 0], [5, 7, 0, 0, 0]])
    assert torch.equal(trim(tokens), tokens[:, :3])  # a 0 inside a caption is a token, not padding
    assert torch.equal(trim(trim(tokens)), trim(tokens))
    assert torch.equal(trim(torch.tensor([[1, 2]])), torch.tensor([[1, 2]]))
    assert trim(torch.zeros(2, 4, dtype=torch.long)).shape == (2, 1)


def test_tokenize_is_open_clip_trimmed(micro):
    full = open_clip.get_tokenizer("ViT-B-32", context_length=24)
    for captions in (CAPTIONS, CAPTIONS[:2], [""]):
        tokens = micro.tokenize(captions)
        expected = full(captions)
        longest = max(int((row != 0).nonzero().max()) + 1 for row in expected)
        assert tokens.shape == (len(captions), longest)
        assert torch.equal(tokens, expected[:, :longest])
    assert micro.tokenize([""]).tolist() == [[49406, 49407]]
    assert micro.tokenize(CAPTIONS).shape[1] == 24  # cut at the context, and end-of-text kept
    assert micro.tokenize([CAPTIONS[-1]])[0, -1] == 49407


@pytest.mark.parametrize("kind", VARIANTS)
def test_text_pass_equals_open_clip_at_full_context(tmp_path, kind):
    encoder = build(tmp_path, VARIANTS[kind])
    expected_class = open_clip.CustomTextCLIP if "custom" in kind else open_clip.CLIP
    assert type(encoder.module) is expected_class
    full = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS[:4])
    short = encoder.tokenize(CAPTIONS[:4])
    assert short.shape[1] < 10
    with torch.inference_mode():
        expected = encoder.module.encode_text(full)
        torch.testing.assert_close(encoder.encode_text(short), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.encode_text(full), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3


def test_trimmed_pass_is_wrong_without_a_causal_mask(tmp_path):
    # the reason for the fallback: here the padding does change the embedding
    for kind in NOT_EXACT[1:]:
        model = build(tmp_path, VARIANTS[kind]).module
        full = open_clip.get_tokenizer("ViT-B-32")(["a red square"])
        with torch.inference_mode():
            longer = model.encode_text(full)
            model.positional_embedding = torch.nn.Parameter(model.positional_embedding[:10].clone())
            model.attn_mask = None if model.attn_mask is None else model.attn_mask[:10, :10]
            assert (model.encode_text(full[:, :10]) - longer).abs().max() > 1e-3


def test_built_in_architecture(tmp_path):
    config = openclip.model_config("ViT-S-32")
    config["vision_cfg"].update(layers=1, width=64)
    config["text_cfg"].update(layers=2)
    encoder = build(tmp_path, config)
    full = open_clip.get_tokenizer("ViT-S-32")(CAPTIONS)
    with torch.inference_mode():
        expected = encoder.module.encode_text(full)
        torch.testing.assert_close(
            encoder.encode_text(encoder.tokenize(CAPTIONS[:5])), expected[:5], rtol=1e-4, atol=1e-5
        )


def test_no_compact_vocabulary_for_other_text_towers(tmp_path):
    encoder = build(tmp_path, VARIANTS["custom text"])
    before = state(encoder)
    encoder.compact_vocabulary(encoder.tokenize(["cat"]))
    assert same_state(state(encoder), before)
    encoder.expand_vocabulary(0.5)
    assert same_state(state(encoder), before)


@pytest.mark.parametrize("kind", ["plain", "eos pooling"])
def test_compact_vocabulary_changes_no_embedding(tmp_path, kind):
    encoder = build(tmp_path, VARIANTS[kind])
    tokens = encoder.tokenize(CAPTIONS)
    with torch.inference_mode():
        before = encoder.encode_text(tokens)
    encoder.compact_vocabulary(tokens)
    assert len(encoder.module.token_embedding.weight) < 200
    with torch.inference_mode():
        assert torch.equal(encoder.encode_text(tokens), before)
    encoder.expand_vocabulary()
    with torch.inference_mode():
        assert torch.equal(encoder.encode_text(tokens), before)


# ---- configs and names


def test_shipped_and_built_in_configs():
    for name in names.SHIPPED:
        assert {"embed_dim", "vision_cfg", "text_cfg"} <= set(openclip.model_config(name))
    assert openclip.model_config("ViT-B-32") == open_clip.get_model_config("ViT-B-32")
    changed = openclip.model_config("ViT-B-32")
    changed["text_cfg"]["layers"] = 99
    assert openclip.model_config("ViT-B-32")["text_cfg"]["layers"] == 12


def test_config_file(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(PLAIN))
    assert openclip.model_config(str(path)) == PLAIN
    path.write_text(json.dumps({"model_cfg": PLAIN, "preprocess_cfg": {}}))
    assert openclip.model_config(str(path)) == PLAIN
    assert openclip.create(str(path), seed=0).image_size == 16


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clipmem-tinny", "Did you mean 'clipmem-tiny' or 'clipmem-tiny-32'?"),
        ("no such thing", "Known shipped models: clipmem-micro, clipmem-tiny, clipmem-tiny-32."),
        ("", "Known shipped models: clipmem-micro, clipmem-tiny, clipmem-tiny-32."),
    ],
)
def test_unknown_name(name, hint):
    with pytest.raises(InputError) as caught:
        openclip.model_config(name)
    assert str(caught.value) == (
        f"[model] name = {name!r}: got no model of that name, "
        f"expected an open_clip model, a shipped one, or a JSON config. {hint}"
    )


def test_architectures_are_those_of_open_clip_and_the_shipped_ones():
    assert sorted(names.architectures()) == sorted([*names.SHIPPED, *open_clip.list_models()])
    for name in open_clip.list_models():
        assert names.model_config(name) == open_clip.get_model_config(name)


def test_unknown_name_near_a_built_in_one():
    with pytest.raises(InputError) as caught:
        openclip.model_config("ViT-B-33")
    assert "'ViT-B-32'" in str(caught.value)


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "local-dir:/nowhere/at/all"])
def test_schemas_are_refused_without_a_look(monkeypatch, name):
    # nothing is downloaded unless asked for
    def look(*_args, **_kwargs):
        raise AssertionError("open_clip was asked for it")

    monkeypatch.setattr(openclip.open_clip, "get_model_config", look)
    with pytest.raises(InputError, match="no model of that name"):
        openclip.model_config(name)


@pytest.mark.parametrize(
    ("text", "got", "expected"),
    [
        ("{", "Expecting property name", "a JSON file"),
        ('{"embed_dim": 3}', "keys ['embed_dim']", "embed_dim, vision_cfg and text_cfg"),
        ("[1, 2]", "list", "embed_dim, vision_cfg and text_cfg"),
        ('{"model_cfg": 3}', "int", "embed_dim, vision_cfg and text_cfg"),
        (None, "No such file", "a JSON file"),
    ],
)
def test_broken_config_file(tmp_path, text, got, expected):
    path = tmp_path / "own.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        openclip.model_config(str(path))
    assert caught.value.what.startswith("[model] name = ")
    assert got in caught.value.got
    assert caught.value.expected == expected


# ---- loss


@pytest.mark.parametrize(("n", "d", "scale"), [(2, 3, 1.0), (5, 7, 14.3), (9, 4, 100.0)])
def test_contrastive_loss_is_the_equation(n, d, scale):
    drawn = torch.randn(2, n, d, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    u, v = torch.nn.functional.normalize(drawn, dim=-1)
    total = 0.0
    for i in range(n):
        for rows, columns in ((u, v), (v, u)):
            logits = [
                scale * sum(float(a) * float(b) for a, b in zip(rows[i], columns[j], strict=True)) for j in range(n)
            ]
            largest = max(logits)
            log_sum = (
                largest + torch.tensor([x - largest for x in logits], dtype=torch.float64).exp().sum().log().item()
            )
            total += (log_sum - logits[i]) / (2 * n)
    assert contrastive_loss(u, v, torch.tensor(scale, dtype=torch.float64)).item() == pytest.approx(total, rel=1e-12)


def test_adapter_takes_a_bare_model(micro):
    copied = OpenClipEncoder(copy.deepcopy(micro.module), openclip.model_config(MICRO), micro._tokenizer)
    with torch.inference_mode():
        tokens = micro.tokenize(CAPTIONS)
        assert torch.equal(copied.encode_text(tokens), micro.encode_text(tokens))
