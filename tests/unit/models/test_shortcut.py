"""The towers' own pass: open_clip's numbers and gradients, and open_clip's own pass for every other kind of tower."""

import copy

import open_clip
import pytest
import torch

from clipmem.measure.sweep import Capture
from clipmem.models import openclip, shortcut
from clipmem.models.openclip import OpenClipEncoder, _encode_trimmed
from tests.unit.models.test_openclip import PLAIN, build, variant

CAPTIONS = ["a red square", "", "!", "two cats and (perhaps) a very long dog", "cat", "words and more words", "x y"]
VIT = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2},
}


def vision(**changes):
    return {**PLAIN, "vision_cfg": {**PLAIN["vision_cfg"], **changes}}


PLAINS = {
    "clipmem-tiny": openclip.model_config("clipmem-tiny"),
    "a small ViT-B-32": VIT,
    "one layer": vision(layers=1),
    "quick gelu": variant(quick_gelu=True),
    "no projection": variant(text_cfg={"proj_type": "none"}),
    "norm after pooling": vision(final_ln_after_pool=True),
    "no first norm": vision(no_ln_pre=True),
    "tanh gelu": vision(act_kwargs={"approximate": "tanh"}),
    "layer scale": {**vision(ls_init_value=0.1), "text_cfg": {**PLAIN["text_cfg"], "ls_init_value": 0.1}},
    "biased projection": variant(text_cfg={"proj_bias": True}),
}
OTHER_IMAGE = {
    "average pooling": vision(pool_type="avg"),
    "attentional pool": vision(attentional_pool=True, attn_pooler_heads=2),
    "patch dropout": vision(patch_dropout=0.5),
    "normed queries": vision(qk_norm=True),
    "ResNet": {**PLAIN, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}},
    "many tokens": vision(image_size=96),
}
OTHER_TEXT = {
    "not causal": variant(text_cfg={"no_causal_mask": True}),
    "custom text": variant(custom_text=True),
    "eos pooling": variant(text_cfg={"pool_type": "eos", "eos_id": 49407}),
    "last pooling": variant(text_cfg={"pool_type": "last"}),
}


def randomized(encoder):
    """Gains and biases that differ from 1 and 0: a forgotten one must show."""
    drawn = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in encoder.module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=drawn))
    return encoder


def images(encoder, n=7):
    size = encoder.image_size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def passes(encoder):
    """Both towers' embeddings, and all gradients of a sum that weighs every number differently."""
    tokens = encoder.tokenize(CAPTIONS)
    encoder.module.zero_grad()
    embeddings = encoder.encode_image(images(encoder)), encoder.encode_text(tokens)
    drawn = torch.Generator().manual_seed(2)
    sum((torch.randn(e.shape, generator=drawn) * e).sum() for e in embeddings).backward()
    gradients = {name: p.grad.clone() for name, p in encoder.module.named_parameters() if p.grad is not None}
    return [e.detach() for e in embeddings], gradients


def far(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12))


@pytest.fixture
def theirs(monkeypatch):
    """Let the encoder use open_clip's blocks, with the trimmed text pass."""

    def off():
        monkeypatch.setattr(openclip, "image_pass", lambda *_: None)
        monkeypatch.setattr(openclip, "text_pass", lambda *_: None)

    return off


@pytest.mark.parametrize("name", PLAINS)
def test_equals_open_clip_with_all_gradients(tmp_path, theirs, name):
    encoder = randomized(build(tmp_path, PLAINS[name]))
    tokens = encoder.tokenize(CAPTIONS)
    assert shortcut.image_pass(encoder.module, images(encoder)) is not None
    assert shortcut.text_pass(encoder.module, tokens, tokens) is not None
    ours = passes(encoder)
    theirs()
    expected = passes(encoder)
    assert ours[1].keys() == expected[1].keys()
    assert max(far(a, b) for a, b in zip(ours[0], expected[0], strict=True)) < 1e-5
    # the keys' bias cannot change a softmax: its true gradient is zero, and relative errors say nothing of it
    assert max(far(ours[1][key], expected[1][key]) for key in expected[1]) < 1e-5


@pytest.mark.parametrize("name", ["clipmem-tiny", "quick gelu"])
def test_bf16_is_no_further_from_float32_than_open_clips(tmp_path, theirs, name):
    encoder = randomized(build(tmp_path, PLAINS[name]))
    exact = passes(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        ours = passes(encoder)
    theirs()
    with torch.autocast("cpu", torch.bfloat16):
        expected = passes(encoder)
    for a, b, truth in zip(ours[0], expected[0], exact[0], strict=True):
        assert 0 < far(a, truth) < 1.2 * far(b, truth)
    ours_far = sum(far(ours[1][key], exact[1][key]) for key in exact[1])
    assert ours_far < 1.2 * sum(far(expected[1][key], exact[1][key]) for key in exact[1])


@pytest.mark.parametrize("name", OTHER_IMAGE)
def test_other_image_towers_take_open_clips_pass(tmp_path, name):
    encoder = build(tmp_path, OTHER_IMAGE[name])
    pixels = images(encoder, 2)
    assert shortcut.image_pass(encoder.module, pixels) is None
    encoder.module.eval()
    assert torch.equal(encoder.encode_image(pixels), encoder.module.encode_image(pixels))


@pytest.mark.parametrize("name", OTHER_TEXT)
def test_other_text_towers_take_open_clips_pass(tmp_path, name):
    encoder = build(tmp_path, OTHER_TEXT[name])
    tokens = encoder.tokenize(CAPTIONS)
    assert shortcut.text_pass(encoder.module, tokens, tokens) is None


def test_siglip_like_models_take_open_clips_pass(tmp_path):
    config = variant(custom_text=True, text_cfg={"no_causal_mask": True, "pool_type": "last"})
    encoder = build(tmp_path, config)
    tokens = encoder.tokenize(CAPTIONS)
    assert shortcut.image_pass(encoder.module, images(encoder)) is None
    assert shortcut.text_pass(encoder.module, tokens, tokens) is None


@pytest.fixture
def micro():
    return openclip.create("clipmem-micro", seed=1)


def both(encoder):
    tokens = encoder.tokenize(CAPTIONS)
    return (
        shortcut.image_pass(encoder.module, images(encoder)) is not None,
        shortcut.text_pass(encoder.module, tokens, tokens) is not None,
    )


def test_a_hook_inside_a_tower_is_called(micro):
    assert both(micro) == (True, True)
    handle = micro.module.visual.transformer.resblocks[1].register_forward_hook(lambda *_: None)
    assert both(micro) == (False, True)
    handle.remove()
    handle = micro.module.transformer.resblocks[0].mlp.register_forward_pre_hook(lambda *_: None)
    assert both(micro) == (True, False)
    handle.remove()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert both(micro) == (False, False)
    handle.remove()
    assert both(micro) == (True, True)


def test_a_changed_module_is_used(micro, theirs):
    mlp = micro.module.visual.transformer.resblocks[0].mlp
    mlp.c_fc = torch.nn.Sequential(mlp.c_fc, torch.nn.Tanh())
    assert both(micro) == (True, True)
    ours = micro.encode_image(images(micro))
    theirs()
    torch.testing.assert_close(ours, micro.encode_image(images(micro)), rtol=1e-5, atol=1e-5)


def test_a_changed_attention_or_norm_takes_open_clips_pass(micro):
    micro.module.ln_final.forward = lambda x: x
    assert both(micro) == (True, False)
    block = micro.module.visual.transformer.resblocks[0]
    block.attn = copy.deepcopy(block.attn)
    block.attn.dropout = 0.1
    assert both(micro) == (False, False)


def test_a_convolution_of_other_patches_takes_open_clips_pass(micro):
    conv = micro.module.visual.conv1
    conv.bias = torch.nn.Parameter(torch.ones(conv.out_channels))
    assert both(micro) == (False, True)


def test_capture_reads_what_open_clip_computes(micro, theirs):
    pixels, tokens = images(micro), micro.tokenize(CAPTIONS)
    micro.module.eval()

    def read():
        with torch.inference_mode(), Capture(micro, "image") as image, Capture(micro, "text") as text:
            return image.read(pixels), text.read(tokens)

    ours = read()
    theirs()
    for a, b in zip(ours, read(), strict=True):
        assert torch.equal(a.embedding, b.embedding)
        assert a.plain.keys() == b.plain.keys()
        assert all(torch.equal(a.plain[site], b.plain[site]) for site in a.plain)


def test_a_compact_vocabulary_and_longer_padding_change_nothing(micro):
    tokens = micro.tokenize(CAPTIONS)
    expected = micro.encode_text(tokens)
    micro.compact_vocabulary(tokens)
    assert torch.equal(micro.encode_text(tokens), expected)
    micro.expand_vocabulary()
    wide = torch.nn.functional.pad(tokens, (0, 3))
    assert torch.equal(micro.encode_text(wide), expected)


def test_embeddings_of_one_caption_and_of_a_batch_agree(micro):
    whole = micro.encode_text(micro.tokenize(CAPTIONS))
    alone = torch.cat([micro.encode_text(micro.tokenize([caption])) for caption in CAPTIONS])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-6)


def test_packing_keeps_every_token_up_to_the_end():
    ends = torch.tensor([3, 0, 5, 5, 1])
    slots, read = shortcut._packed(ends, 6)
    assert slots[read].tolist() == [0 * 6 + 3, 1 * 6 + 0, 2 * 6 + 5, 3 * 6 + 5, 4 * 6 + 1]
    for k, end in enumerate(ends.tolist()):
        assert {k * 6 + t for t in range(end + 1)} <= set(slots.tolist())
    assert len(slots) == min(32, 5 * 6) == len(set(slots.tolist()))
    slots, _ = shortcut._packed(torch.full((40,), 1), 9)
    assert len(slots) == 96  # 80 are needed; rounded up to a multiple of 32


def test_frozen_towers_get_no_gradient(micro):
    micro.module.visual.requires_grad_(requires_grad=False)
    assert not micro.encode_image(images(micro)).requires_grad
    micro.encode_text(micro.tokenize(CAPTIONS)).sum().backward()
    assert all(p.grad is None for p in micro.module.visual.parameters())
    assert micro.module.transformer.resblocks[0].mlp.c_fc.weight.grad is not None


def test_open_clip_still_makes_the_towers_that_this_reads():
    model = open_clip.create_model("ViT-B-32", load_weights=False, pretrained_text=False, device="meta")
    for transformer, heads in ((model.visual.transformer, 12), (model.transformer, 8)):
        assert shortcut._is_plain(transformer, [])
        assert {block.attn.num_heads for block in transformer.resblocks} == {heads}


def test_the_trimmed_pass_is_still_there_for_what_is_watched(micro):
    tokens = micro.tokenize(CAPTIONS)
    copied = OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)
    copied.module.transformer.register_forward_hook(lambda *_: None)
    assert torch.equal(copied.encode_text(tokens), _encode_trimmed(micro.module, tokens, tokens))
