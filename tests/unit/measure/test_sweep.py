"""Hooks: every kind of tower is found, what is read equals the modules called by hand, and nothing else changes."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipmem.base.errors import InputError
from clipmem.data.views import caption_edits, text_views
from clipmem.measure.sweep import Capture, find_sites, pool, token_mask
from clipmem.models import openclip

CAPTIONS = ["cat", "!", "a red square on a blue ! field", "two dogs"]
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
CONFIGS = {
    "vit": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "resnet": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "custom text": {"embed_dim": 16, "custom_text": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "custom text, not causal": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "no_causal_mask": True},
    },
    "custom blocks": {
        "embed_dim": 16,
        "vision_cfg": {**VISION, "scale_attn": True, "scale_fc": True},
        "text_cfg": TEXT,
    },
}


def images(n, size=32, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=CONFIGS)
def encoder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(CONFIGS[request.param]))
    made = openclip.create(str(path), seed=1)
    made.module.eval()
    if request.param == "resnet":  # residual branches start at 0: let them do something
        for name, parameter in made.module.named_parameters():
            if name.endswith("bn3.weight"):
                nn.init.constant_(parameter, 0.5)
    return made


@pytest.fixture(scope="module")
def micro():
    made = openclip.create("clipmem-micro", seed=3)
    made.module.eval()
    return made


def hf_encoder():
    pytest.importorskip("transformers", reason="the extra hf is not installed")
    from tests.tokens import clip_model

    config = {
        "projection_dim": 12,
        "text_config": {
            "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 39, "bos_token_id": 38,
        },
        "vision_config": {
            "image_size": 32, "patch_size": 8, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2,
        },
    }  # fmt: skip
    return clip_model(config, hf_tokens, seed=0)


def hf_tokens(captions):
    return [[38, *(1 + sum(map(ord, word)) % 36 for word in text.split()), 39] for text in captions]


def passes(encoder, captions, pixels):
    """Read both towers, one by one."""
    found = []
    for tower, inputs in (("image", pixels), ("text", encoder.tokenize(captions))):
        with torch.no_grad(), Capture(encoder, tower) as capture:
            found.append(capture.read(inputs))
    return found


# ---- which layers


def test_sites_of_every_tower(encoder, request):
    name = request.node.callspec.params["encoder"]
    sites = [site for tower in ("image", "text") for site in find_sites(encoder.module, tower)]
    kinds = {(site.tower, site.layer, site.kind) for site in sites}
    text = {("text", layer, kind) for layer in (1, 2) for kind in ("mlp", "attn", "block")}
    if name == "resnet":
        image = {("image", layer, kind) for layer in (1, 2, 3, 4) for kind in ("conv1", "conv2", "block")}
    else:
        image = {("image", layer, kind) for layer in (1, 2) for kind in ("mlp", "attn", "block")}
    assert kinds == text | image
    assert len(sites) == len(kinds)


def test_no_layer_is_an_error():
    with pytest.raises(InputError, match=r"^image tower of Linear: got no layers that can be hooked, expected one of "):
        find_sites(nn.Linear(2, 2), "image")


def test_timm_tower_is_found(tmp_path):
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    (tmp_path / "timm.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}))
    made = openclip.create(str(tmp_path / "timm.json"), seed=0)
    made.module.eval()
    layers = [(site.layer, site.kind) for site in find_sites(made.module, "image")]
    assert layers == [(k, s) for k in range(1, 13) for s in ("mlp", "attn", "block")]
    with torch.no_grad(), Capture(made, "image") as capture:
        seen = capture.read(images(2, size=224))
    assert {site.kind: values.shape for site, values in seen.plain.items()} == {
        "mlp": (2, 768),
        "attn": (2, 192),
        "block": (2, 192),
    }


# ---- what is read


def by_place(pooled):
    return {(site.layer, site.kind): values for site, values in pooled.items()}


def walk(blocks, x, mask=None):
    """Open_clip's residual blocks, module by module: (layer, kind) → activations."""
    found = {}
    for layer, block in enumerate(blocks, start=1):
        h = block.ln_1(x)
        attention = block.attn
        q, k, v = F.linear(h, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        heads = [
            torch.softmax(a @ b.transpose(1, 2) / a.shape[-1] ** 0.5 + (0 if mask is None else mask), dim=-1) @ c
            for a, b, c in zip(*(t.chunk(attention.num_heads, dim=-1) for t in (q, k, v)), strict=True)
        ]
        found[layer, "attn"] = attention.out_proj(torch.cat(heads, dim=-1))
        x = x + found[layer, "attn"]
        found[layer, "mlp"] = F.gelu(block.mlp.c_fc(block.ln_2(x)))
        x = x + block.mlp.c_proj(found[layer, "mlp"])
        found[layer, "block"] = x
    return found


@torch.no_grad()
def test_image_tower_equals_modules_called_by_hand(micro):
    pixels = images(3)
    vision = micro.module.visual
    patches = vision.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([vision.class_embedding.expand(3, 1, -1), patches], dim=1) + vision.positional_embedding
    expected = walk(vision.transformer.resblocks, vision.ln_pre(x))
    seen, _ = passes(micro, CAPTIONS, pixels)
    assert by_place(seen.plain).keys() == expected.keys()
    for place, values in expected.items():
        torch.testing.assert_close(by_place(seen.plain)[place], values.mean(dim=1), atol=1e-5, rtol=1e-4)
        if place[1] != "block":
            positive = values.clamp(min=0).mean(dim=1)
            torch.testing.assert_close(by_place(seen.units)[place], positive, atol=1e-5, rtol=1e-4)
    assert {kind for _, kind in by_place(seen.units)} == {"mlp", "attn"}


@torch.no_grad()
def test_text_tower_equals_modules_called_by_hand_one_caption_at_a_time(micro):
    _, seen = passes(micro, CAPTIONS, images(1))
    model = micro.module
    for row, caption in enumerate(CAPTIONS):
        tokens = micro.tokenize([caption])  # alone: no padding
        length = tokens.shape[1]
        x = model.token_embedding(tokens) + model.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1)
        for place, values in walk(model.transformer.resblocks, x, mask).items():
            torch.testing.assert_close(by_place(seen.plain)[place][row], values[0].mean(dim=0), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_resnet_equals_modules_called_by_hand(encoder, request):
    if request.node.callspec.params["encoder"] != "resnet":
        return
    pixels = images(2)
    vision = encoder.module.visual
    seen = by_place(passes(encoder, CAPTIONS, pixels)[0].plain)
    x = vision.stem(pixels)
    for layer, stage in enumerate((vision.layer1, vision.layer2, vision.layer3, vision.layer4), start=1):
        block = stage[0]
        first = torch.relu(block.bn1(block.conv1(x)))
        second = torch.relu(block.bn2(block.conv2(first)))
        torch.testing.assert_close(seen[layer, "conv1"], first.mean(dim=(2, 3)))
        torch.testing.assert_close(seen[layer, "conv2"], second.mean(dim=(2, 3)))
        x = block(x)
        torch.testing.assert_close(seen[layer, "block"], x.mean(dim=(2, 3)))


@torch.no_grad()
def test_transformers_clip_equals_its_own_hidden_states():
    made = hf_encoder()
    pixels, captions = images(2), ["one", "two three four five"]
    image, text = passes(made, captions, pixels)
    hidden = made.module.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
    for layer in (1, 2, 3):
        torch.testing.assert_close(by_place(image.plain)[layer, "block"], hidden[layer].mean(dim=1))
    assert by_place(image.units)[1, "mlp"].shape == (2, 24)
    for row, caption in enumerate(captions):
        alone = made.module.text_model(input_ids=made.tokenize([caption]), output_hidden_states=True).hidden_states
        for layer in (1, 2):
            torch.testing.assert_close(
                by_place(text.plain)[layer, "block"][row], alone[layer][0].mean(dim=0), atol=1e-5, rtol=1e-4
            )
    own = made.module(pixel_values=pixels, input_ids=made.tokenize(captions))
    torch.testing.assert_close(F.normalize(image.embedding, dim=1), own.image_embeds)
    torch.testing.assert_close(F.normalize(text.embedding, dim=1), own.text_embeds)


# ---- what must not matter


@pytest.mark.parametrize("training", [False, True])
def test_hooks_change_no_output(encoder, training):
    made = copy.deepcopy(encoder)
    made.module.train(training)
    tokens = made.tokenize(CAPTIONS)
    with torch.no_grad():
        before = made.encode_image(images(2)), made.encode_text(tokens)
        with Capture(made, "image") as image, Capture(made, "text") as text:
            during = image.read(images(2)).embedding, text.read(tokens).embedding
        after = made.encode_image(images(2)), made.encode_text(tokens)
    for a, b, c in zip(before, during, after, strict=True):
        if not training:  # a ResNet in training moves its statistics
            assert torch.equal(a, c)
        # what is not watched takes a shorter way where there is one (`models.shortcut`): equal up to rounding
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert not any(module._forward_hooks for module in made.module.modules())


def test_train_and_eval_read_the_same(micro):
    """nn.MultiheadAttention takes another path in eval mode without gradients."""
    made = copy.deepcopy(micro)
    seen = passes(made, CAPTIONS, images(2))
    made.module.train()
    with Capture(made, "image") as image, Capture(made, "text") as text:
        slow = image.read(images(2)), text.read(made.tokenize(CAPTIONS))
    for a, b in zip(seen, slow, strict=True):
        for site, values in a.plain.items():
            torch.testing.assert_close(values, b.plain[site], atol=1e-5, rtol=1e-4)
            assert not b.plain[site].requires_grad


def test_text_does_not_depend_on_the_batch(encoder):
    together = passes(encoder, CAPTIONS, images(1))[1]
    for row, caption in enumerate(CAPTIONS):
        alone = passes(encoder, [caption], images(1))[1]
        for pooled, single in ((together.plain, alone.plain), (together.units, alone.units)):
            for site, values in pooled.items():
                torch.testing.assert_close(values[row], single[site][0], atol=1e-5, rtol=1e-4)


def test_a_layer_that_is_not_called_is_an_error(micro):
    made = copy.deepcopy(micro)
    capture = Capture(made, "text")
    made.module.transformer.resblocks = nn.ModuleList()  # after the search, before the hooks
    with pytest.raises(KeyError), capture:
        pass
    made = copy.deepcopy(micro)
    with Capture(made, "text") as capture, torch.no_grad():
        made.module.transformer.forward = lambda x, attn_mask=None: x
        with pytest.raises(
            InputError, match=r"^text tower: got 3 layers that the forward pass did not call, the first"
        ):
            capture.read(made.tokenize(["cat"]))


# ---- averages


def test_token_mask_ends_at_the_last_token_that_is_not_padding():
    tokens = torch.tensor([[5, 0, 9, 0], [5, 9, 0, 0], [0, 0, 0, 0], [1, 2, 3, 9]])
    assert token_mask(tokens).int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_pool_by_loops():
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, False], [True, True], [True, True]])
    expected = torch.stack([values[i, : int(mask[i].sum())].mean(dim=0) for i in range(3)])
    torch.testing.assert_close(pool(values, "ntu", mask), expected)
    torch.testing.assert_close(pool(values.transpose(0, 1), "tnu", mask), expected)
    torch.testing.assert_close(pool(values, "ntu"), values.mean(dim=1))
    space = values.reshape(3, 5, 2, 2)
    torch.testing.assert_close(pool(space, "nuhw"), space.flatten(2).mean(dim=2))


# ---- caption edits

UID = "0123456789abcdef" * 2


@pytest.mark.parametrize("caption", ["red square", "cat", "a photo of a small dog", "the the the", "a b"])
def test_edits_are_different_and_repeatable(caption):
    edits = caption_edits(caption, UID, count=6)
    assert edits == caption_edits(caption, UID, count=6)
    folded = [edit.lower() for edit in [caption, *edits]]
    assert len(set(folded)) == len(folded)
    assert all(edit.strip() for edit in edits)
    assert caption_edits(caption, UID, count=3) == edits[:3] or len(edits) < 6
    assert len(edits) >= 1


def test_edits_depend_on_pair_and_seed():
    caption = "a photo of a small dog on a very green hill"
    first = caption_edits(caption, UID, count=5)
    assert len(first) == 5
    assert first != caption_edits(caption, UID[1:] + "0", count=5)
    assert first != caption_edits(caption, UID, count=5, seed=1)


def test_edits_only_drop_or_swap_words():
    words = [f"w{k}" for k in range(12)]
    seen = set()
    for edit in caption_edits(" ".join(words), UID, count=30, dropout=0.3):
        kept = edit.split()
        assert set(kept) <= set(words)
        if len(kept) == len(words):
            moved = [k for k in range(12) if kept[k] != words[k]]
            assert len(moved) == 2
            assert moved[1] == moved[0] + 1
            seen.add("swap")
        else:
            assert kept == [word for word in words if word in kept]
            seen.add("drop")
    assert seen == {"swap", "drop"}


def test_nothing_to_edit():
    assert caption_edits("", UID, count=3) == []
    assert caption_edits("a", UID, count=3) == []


def test_text_views_prefer_captions():
    assert text_views(["a", "b", "a", "c"], UID, count=5) == ("a", ["b", "c"])
    assert text_views(["a", "b", "c"], UID, count=1) == ("a", ["b"])
    clean, views = text_views(["red square"], UID, count=2)
    assert clean == "red square"
    assert views == caption_edits("red square", UID, count=2)
