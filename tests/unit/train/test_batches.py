"""Batches made ahead in order, errors where they belong; frozen towers are embedded once, and what is frozen stays."""

import copy
import json
import threading
import time
from itertools import count

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import ModelSection, TrainSection
from clipmem.data.decoding import decode
from clipmem.models import openclip, parts
from clipmem.models.openclip import OpenClipEncoder
from clipmem.models.parts import chosen, part_of, rate_factors
from clipmem.models.start import Start, parts_of
from clipmem.train.batches import TrainingData, embed_frozen, made_ahead
from clipmem.train.checkpoint import Checkpoints, TrainingStopped
from clipmem.train.loop import Session, train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet
from tests.tiny import encoded_image


def makers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("clipmem batches")]


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_same_items_in_the_same_order(depth, n):
    assert list(made_ahead(iter(range(n)), depth=depth)) == list(range(n))
    assert not makers()


def test_at_most_so_many_are_made_in_advance():
    made = []

    def items():
        for k in range(20):
            made.append(k)
            yield k

    batches = made_ahead(items(), depth=2)
    assert next(batches) == 0
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # it could make more now
    assert made == [0, 1, 2, 3]  # one is out, two wait, and one waits for its place
    assert list(batches) == list(range(1, 20))


def test_without_a_thread_nothing_is_made_in_advance():
    source = count()
    batches = made_ahead(source, depth=0)
    assert (next(batches), next(batches), next(source)) == (0, 1, 2)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_when_its_turn_comes(error):
    def items():
        yield "first"
        raise error("broken")

    batches = made_ahead(items(), depth=2)
    assert next(batches) == "first"
    with pytest.raises(error, match="broken"):
        next(batches)
    assert not makers()


@pytest.mark.parametrize("taken", [1, 4])
def test_closing_ends_the_thread(taken):
    batches = made_ahead(count(), depth=3)
    for _ in range(taken):
        next(batches)
    assert len(makers()) == 1
    batches.close()
    assert not makers()


def test_an_error_of_the_user_of_the_batches_ends_the_thread():
    def use():
        for _ in made_ahead(count(), depth=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert not makers()


@pytest.mark.parametrize("flush", [False, True])
def test_the_thread_flushes_denormals_as_its_user_does(flush):
    def items():
        yield bool((torch.tensor([1e-310], dtype=torch.float64) * 0.5).gt(0))

    torch.set_flush_denormal(flush)
    try:
        assert list(made_ahead(items(), depth=1)) == [not flush]
    finally:
        torch.set_flush_denormal(False)


N = 18
PIXELS = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
CAPTIONS = [[f"thing number {k}", f"number {k} " + "very " * (k % 5)] for k in range(N)]
UIDS = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N))
IMAGE_PARTS = ["image.embeddings", "image.blocks.0-99", "image.head"]
TEXT_PARTS = ["text.embeddings", "text.blocks.0-99", "text.head"]


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


@pytest.fixture
def fresh(micro):
    return lambda: OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)


def trained(encoder, folder, *, seed=0, **changes):
    section = TrainSection(**{"epochs": 2, "batch_size": 8, "precision": "fp32", "captions": 2, **changes})
    data = TrainingData(PIXELS, np.arange(N), CAPTIONS)
    train(Towers(encoder), data, TrainingSet("f", seed, UIDS, N), section, folder)
    return encoder.module.state_dict()


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


# ---- training


@pytest.mark.parametrize(
    "frozen",
    [["image"], ["text"], ["image", "text.blocks.0"], ["embeddings"], ["logit_scale"], IMAGE_PARTS, ["blocks.1"]],
)
def test_exactly_the_others_change(fresh, tmp_path, frozen):
    encoder = fresh()
    before = copy.deepcopy(encoder.module.state_dict())
    fixed = chosen(parts_of(encoder), frozen, "freeze")
    after = trained(encoder, tmp_path, freeze=frozen)
    moved = changed(before, after)
    assert not moved & fixed
    # the rest is trained: every parameter but a weight whose gradient is zero by construction
    left = {name for name, _ in encoder.module.named_parameters()} - fixed
    assert moved == left


@pytest.mark.parametrize(("tower", "own_parts"), [("image", IMAGE_PARTS), ("text", TEXT_PARTS)])
def test_a_tower_embedded_once_equals_one_that_runs(fresh, tmp_path, tower, own_parts):
    still = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    once = trained(fresh(), tmp_path / "once", freeze=[tower], **still)
    runs = trained(fresh(), tmp_path / "runs", freeze=own_parts, **still)
    for name, weight in runs.items():
        torch.testing.assert_close(once[name], weight, rtol=2e-4, atol=2e-5, msg=name)
    assert changed(once, trained(fresh(), tmp_path / "none", **still))


def test_frozen_embeddings_equal_single_passes(fresh):
    encoder = fresh()
    tokens = encoder.tokenize([text for own in CAPTIONS for text in own])
    towers = Towers(encoder, "fp32", "cpu", frozen=frozenset(["image", "text"]))
    rows = np.array([3, 3, 0, 17])
    found = embed_frozen(towers, PIXELS, rows, tokens)
    encoder.module.eval()
    with torch.no_grad():
        for k, row in enumerate(rows):
            values = torch.from_numpy(PIXELS[row]).permute(2, 0, 1)[None].float() / 255
            values = (values - torch.tensor(encoder.mean).view(1, 3, 1, 1)) / torch.tensor(encoder.std).view(1, 3, 1, 1)
            torch.testing.assert_close(found["image"][k : k + 1], encoder.module.encode_image(values))
        for k in (0, 5, 35):
            torch.testing.assert_close(found["text"][k : k + 1], encoder.encode_text(tokens[k : k + 1]))
    assert embed_frozen(Towers(encoder, "fp32", "cpu"), PIXELS, rows, tokens) == {}


def test_layer_decay_scales_the_first_step(fresh, tmp_path):
    # the first step of AdamW moves a weight by rate * g / (|g| + eps'): proportional to the rate
    one = {"epochs": 1, "batch_size": N, "weight_decay": 0.0, "warmup": 0.0, "grad_clip": 0.0, "lr": 1e-3}
    start = copy.deepcopy(fresh().module.state_dict())
    plain, decayed = (trained(fresh(), tmp_path / str(decay), layer_decay=decay, **one) for decay in (1.0, 0.5))
    encoder = fresh()
    factor = rate_factors(parts_of(encoder), 0.5)
    for name, _ in encoder.module.named_parameters():
        moved, full = (decayed[name] - start[name]).double(), (plain[name] - start[name]).double()
        if name == "token_embedding.weight":
            moved, full = moved[full != 0], full[full != 0]
        large = full.abs() > 1e-4
        assert large.any(), name
        torch.testing.assert_close(moved[large], factor[name] * full[large], rtol=5e-3, atol=2e-7, msg=name)


@pytest.mark.parametrize("frozen", [["text.embeddings"], ["text"]])
def test_a_frozen_vocabulary_is_not_decayed(fresh, tmp_path, frozen):
    encoder = fresh()
    before = encoder.module.token_embedding.weight.detach().clone()
    trained(encoder, tmp_path, freeze=frozen, weight_decay=0.5, lr=1e-2)
    assert torch.equal(before, encoder.module.token_embedding.weight)


def test_unused_rows_decay_at_the_rate_of_their_layer(fresh, tmp_path):
    encoder = fresh()
    before = encoder.module.token_embedding.weight.detach().clone()
    used = set(encoder.tokenize([text for own in CAPTIONS for text in own]).flatten().tolist())
    unused = torch.tensor(sorted(set(range(len(before))) - used)[:50])
    trained(encoder, tmp_path, layer_decay=0.5, weight_decay=0.5, lr=1e-2, epochs=1, batch_size=N, warmup=0.0)
    depth = 1 + max(part.block for part in parts_of(encoder).values() if part.tower == "text")
    expected = before[unused] * (1 - 1e-2 * 0.5 ** (depth + 1) * 0.5)
    torch.testing.assert_close(encoder.module.token_embedding.weight[unused], expected)


@settings(max_examples=10)
@given(first=st.integers(0, 3), image=st.booleans())
def test_gradients_stop_below_frozen_blocks(first, image):
    tiny = openclip.create("clipmem-tiny", seed=3)
    prefix = "visual.transformer.resblocks." if image else "transformer.resblocks."
    weights = dict(tiny.module.named_parameters())
    blocks = {n for n in weights if n.startswith(prefix)}
    depth = 1 + max(int(n.removeprefix(prefix).split(".")[0]) for n in blocks)
    first = min(first, depth - 1)
    for name in weights:
        below = name in blocks and int(name.removeprefix(prefix).split(".")[0]) < first
        front = any(word in name for word in ("embedding", "conv1", "ln_pre"))
        weights[name].requires_grad = not (below or front)
    x = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = tiny.tokenize(["one", "two words", "and three words"])
    left = {
        n: p for n, p in weights.items() if p.requires_grad and n.startswith("visual.") == image and n != "logit_scale"
    }

    def gradients(embed):
        loss = (embed() ** 3).sum()
        return dict(zip(left, torch.autograd.grad(loss, list(left.values())), strict=True))

    ours = gradients(lambda: tiny.encode_image(x) if image else tiny.encode_text(tokens))
    padded = torch.nn.functional.pad(tokens, (0, tiny.context - tokens.shape[1]))
    theirs = gradients(lambda: tiny.module.encode_image(x) if image else tiny.module.encode_text(padded))
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_averages_of_a_frozen_resnet_do_not_move(tmp_path):
    config = copy.deepcopy(open_clip.get_model_config("RN50"))
    config["vision_cfg"] |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}
    config["text_cfg"] |= {"width": 32, "heads": 2, "layers": 1}
    config["embed_dim"] = 16
    file = tmp_path / "resnet.json"
    file.write_text(json.dumps(config))
    encoder = Start(ModelSection(name=str(file)), TrainSection()).create(0)
    before = copy.deepcopy(encoder.module.state_dict())
    after = trained(encoder, tmp_path / "out", freeze=["image.embeddings", "image.blocks", "text"], epochs=1)
    assert {part_of(name, image=True).kind for name in changed(before, after) if name != "logit_scale"} == {"head"}


@pytest.mark.parametrize(
    "changes",
    [{"freeze": ["image"]}, {"freeze": ["text.embeddings", "image.blocks"], "layer_decay": 0.7}, {"freeze": ["text"]}],
)
def test_a_stopped_training_resumes_with_the_same_bytes(fresh, tmp_path, changes):
    settings = TrainSection(epochs=3, batch_size=6, precision="fp32", **changes)
    data, plan = TrainingData(PIXELS, np.arange(N), CAPTIONS), TrainingSet("f", 1, UIDS, N)

    def run(folder, checkpoints=None):
        return train(Towers(fresh()), data, plan, settings, folder, Session(checkpoints=checkpoints))

    run(tmp_path / "whole")
    steps = iter([False] * 4 + [True] * 9)
    file = tmp_path / "parts" / "checkpoint.safetensors"
    with pytest.raises(TrainingStopped):
        run(tmp_path / "parts", Checkpoints(file, stop=lambda: next(steps)))
    assert file.is_file()
    run(tmp_path / "parts", Checkpoints(file))
    for name in ("open_clip_model.safetensors", "log.jsonl", "record.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# ---- where training starts


def test_pretrained_with_its_own_initialization_equals_from_scratch(tmp_path):
    seed = 5
    init = derive_seed(seed, "init")
    openclip.create("clipmem-micro", seed=init).save(tmp_path / "base")
    starts = [
        Start(model, TrainSection())
        for model in (ModelSection(name="clipmem-micro"), ModelSection(pretrained=str(tmp_path / "base")))
    ]
    a, b = (trained(one.create(init), tmp_path / f"out{k}", seed=seed) for k, one in enumerate(starts))
    assert a.keys() == b.keys()
    assert not changed(a, b)
    assert (tmp_path / "out0/open_clip_model.safetensors").read_bytes() == (
        tmp_path / "out1/open_clip_model.safetensors"
    ).read_bytes()


def test_all_seeds_start_from_the_pretrained_weights(tmp_path, micro):
    micro.save(tmp_path)
    start = Start(ModelSection(pretrained=str(tmp_path)), TrainSection())
    described = start.describe()["base"]
    assert described["width"] == start.width == 32
    assert described["parameters"] == sum(p.numel() for p in micro.module.parameters())
    for seed in (0, 1):
        assert not changed(micro.module.state_dict(), start.create(seed).module.state_dict())


@pytest.mark.parametrize(
    ("frozen", "got"), [(["image", "text"], "leaves nothing"), (["image", "txt"], "'txt'"), (["head", "x"], "'x'")]
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_bad_freezing_is_refused_before_training(tmp_path, micro, frozen, got, pretrained):
    micro.save(tmp_path)
    model = ModelSection(pretrained=str(tmp_path)) if pretrained else ModelSection(name="clipmem-micro")
    with pytest.raises(InputError) as error:
        Start(model, TrainSection(freeze=frozen)).describe()
    assert (error.value.what, got in error.value.got) == ("[train] freeze", True)


def test_another_architecture_is_refused(tmp_path, micro):
    micro.save(tmp_path)
    with pytest.raises(InputError) as error:
        Start(ModelSection(name="clipmem-tiny", pretrained=str(tmp_path)), TrainSection()).describe()
    assert error.value.what == "[model] name = 'clipmem-tiny'"
    Start(ModelSection(name="clipmem-micro", pretrained=str(tmp_path)), TrainSection()).describe()


@pytest.mark.parametrize(
    ("recipe", "keys"),
    [
        (["model.name="], "[model]"),
        (["train.adapter=lora"], "adapter = 'lora'"),
        (["train.freeze=[image]", "train.flip=0.5"], "flip"),
        (["train.freeze=[image]", "mitigate.image_variants.probability=0.5"], "image_variants"),
        (["train.freeze=[text]", "mitigate.text_masking.probability=0.5"], "text_masking"),
        (["train.freeze=[image]", "train.objective=supervised", "score.alignment=confidence"], "freeze has 'image'"),
        (["train.layer_decay=0"], "layer_decay"),
        (["train.lora.rank=0"], "rank"),
        (["protocol=given", "given.target=[a]", "given.reference=[b]", "model.pretrained=c"], "pretrained"),
    ],
)
def test_bad_settings(recipe, keys):
    with pytest.raises(InputError) as error:
        load_recipe("", recipe)
    assert keys in str(error.value)


def test_lists_of_bare_words_on_the_command_line():
    settings = ["train.freeze=[image, text.blocks.0-1]", "train.seeds=[3, 4]", "train.crop_scale=[0.5, 1]"]
    train = load_recipe("", settings).train
    assert (train.freeze, train.seeds, train.crop_scale) == (("image", "text.blocks.0-1"), (3, 4), (0.5, 1.0))
    assert load_recipe("", ["train.freeze=[]"]).train.freeze == ()
    assert parts.TOWERS == ("image", "text")
