"""Adapters (LoRA): what trains, against the base's own library; what is written, against loops and peft."""

import copy
import json
import shutil
import sys

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipmem.base.errors import InputError
from clipmem.base.hashing import file_sha256
from clipmem.base.sections import ModelSection, TrainSection
from clipmem.models import adapters, given, openclip
from clipmem.models.openclip import OpenClipEncoder
from clipmem.models.start import Start, freeze, parts_of
from clipmem.train.checkpoint import CHECKPOINT_FILE, TrainingStopped
from tests.unit.models.test_openclip import variant
from tests.unit.models.test_openclip_addresses import RESNET, TIMM_VIT, TOWERS, write_folder
from tests.unit.train.test_checkpoint import fit

CAPTIONS = ["a red square", "two cats and (perhaps) a dog", "!"]
RANK, ALPHA = 3, 7.5
BLOCK = "visual.transformer.resblocks.1"


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft", reason="the extra hf is not installed")


@pytest.fixture(scope="module")
def base(peft, tmp_path_factory):
    """A small model of open_clip in a folder."""
    folder = tmp_path_factory.mktemp("base") / "model"
    openclip.create("clipmem-micro", seed=3).save(folder)
    return folder


def settings(**changes):
    lora = {"rank": RANK, "alpha": ALPHA, **changes.pop("lora", {})}
    return {"adapter": "lora", "lora": lora, **changes}


def start(address, **changes):
    return Start(ModelSection(pretrained=str(address)), TrainSection(**settings(**changes)))


def weights(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def moved(encoder, std=0.2):
    """Draw B, which is zero at the start, where training would move it."""
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in encoder.module.named_parameters():
            if ".lora_B." in name and p.requires_grad:
                p.copy_(std * torch.randn(p.shape, generator=drawn))
    return encoder


def images(encoder, n=3):
    return torch.randn(n, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(2))


def embed(encoder):
    with torch.no_grad():
        return encoder.encode_image(images(encoder)), encoder.encode_text(encoder.tokenize(CAPTIONS))


def close(found, expected, atol=1e-5):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def saved(address, folder, **changes):
    """Write adapters that are not zero; return the adapted model."""
    encoder = moved(start(address, **changes).create(0))
    encoder.module.eval()
    encoder.save(folder)
    return encoder


# ---- what trains


def sizes(module, names):
    """Return r * (in + out) for each matrix, from the shapes of the base model."""
    every = dict(module.named_parameters())
    shapes = [every[name + ("in_proj_weight" if name.endswith(".") else ".weight")].shape for name in names]
    return sum(RANK * (rows + columns) for rows, columns in shapes)


def matrices(module):
    """The matrices of attention and MLP in every block of open_clip's model."""
    blocks = [f"visual.transformer.resblocks.{k}" for k in range(len(module.visual.transformer.resblocks))]
    blocks += [f"transformer.resblocks.{k}" for k in range(len(module.transformer.resblocks))]
    return [f"{block}.{end}" for block in blocks for end in ("attn.", "mlp.c_fc", "mlp.c_proj")]


def expected_names(names):
    return {f"{name.rstrip('.')}.lora_{half}.default.weight" for name in names for half in "AB"}


def trained_of(encoder):
    return {name: p.numel() for name, p in encoder.module.named_parameters() if p.requires_grad}


def test_adapters_alone_train_and_have_r_times_in_plus_out_parameters(base):
    plain = openclip.load(base).module
    found = trained_of(start(base).create(0))
    assert set(found) == expected_names(matrices(plain))
    assert sum(found.values()) == sizes(plain, matrices(plain)) > 0


@pytest.mark.parametrize(("frozen", "left"), [("image", "transformer."), ("text", "visual.")])
def test_a_frozen_tower_has_no_adapters_to_train(base, frozen, left):
    begun = start(base, freeze=(frozen,))
    encoder = begun.create(0)
    freeze(encoder, begun.train)
    names = [name for name in matrices(openclip.load(base).module) if name.startswith(left)]
    assert set(trained_of(encoder)) == expected_names(names)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["attn"], lambda name: name.endswith("attn.")),
        (["mlp.c_fc"], lambda name: name.endswith("c_fc")),
        ([f"{BLOCK}.attn", "c_proj"], lambda name: name.endswith("c_proj") or name == f"{BLOCK}.attn."),
    ],
)  # fmt: skip
def test_targets_are_ends_of_names(base, targets, expected):
    names = [name for name in matrices(openclip.load(base).module) if expected(name)]
    assert set(trained_of(start(base, lora={"targets": targets}).create(0))) == expected_names(names)
    assert len(names) in {1 + len(targets), 3, 4}


def test_adapters_depend_on_the_seed_alone_and_start_at_the_base_model(base):
    plain, begun = openclip.load(base), start(base)
    plain.module.eval()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    f, g, other = begun.create(4), begun.create(4), begun.create(5)
    assert torch.equal(torch.get_rng_state(), before)
    for encoder in (f, g, other):
        assert torch.equal(embed(encoder)[0], embed_by_library(plain)[0])
        close(embed(encoder), embed_by_library(plain))  # captions are trimmed
    ours, same, drawn = (weights(encoder.module) for encoder in (f, g, other))
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    unequal = {name for name in ours if not torch.equal(ours[name], drawn[name])}
    assert unequal == {name for name in ours if ".lora_A." in name}


def embed_by_library(encoder):
    """Embed with open_clip's own passes."""
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-B-32", context_length=encoder.context)(CAPTIONS)
        return encoder.module.encode_image(images(encoder)), encoder.module.encode_text(tokens)


# ---- passes: gradients and outputs of one module's adapter, against open_clip with W + (alpha / r) B A

ONE = ["visual.transformer.resblocks.0.attn", "visual.transformer.resblocks.1.attn",
       "visual.transformer.resblocks.0.mlp.c_fc", "visual.transformer.resblocks.1.mlp.c_proj",
       "resblocks.0.mlp.c_proj", "mlp.c_fc", "attn"]  # fmt: skip


@pytest.mark.parametrize("target", ONE)
@pytest.mark.parametrize("compact", [False, True])
def test_passes_and_gradients_are_those_of_the_sum_of_the_weights(base, target, compact):
    encoder = moved(start(base, lora={"targets": [target]}).create(0))
    encoder.module.eval()
    plain = openclip.load(base)
    plain.module.eval()
    halves = {
        name: p.detach().clone().requires_grad_() for name, p in encoder.module.named_parameters() if p.requires_grad
    }
    state = dict(plain.module.named_parameters())
    for name in halves:
        if ".lora_A." in name:
            at = name.removesuffix(".lora_A.default.weight")
            key = f"{at}.in_proj_weight" if at.endswith("attn") else f"{at}.weight"
            state[key] = state[key] + ALPHA / RANK * halves[name.replace("lora_A", "lora_B")] @ halves[name]
    tokens = open_clip.get_tokenizer("ViT-B-32", context_length=plain.context)(CAPTIONS)
    if compact:
        encoder.compact_vocabulary(tokens)
    drawn = torch.Generator().manual_seed(5)
    ours, theirs, total = [encoder.encode_image(images(encoder)), encoder.encode_text(tokens)], [], [0, 0]
    for kind, values in (("encode_image", images(plain)), ("encode_text", tokens)):
        theirs.append(
            torch.func.functional_call(_Call(plain.module, kind), {f"model.{k}": v for k, v in state.items()}, values)
        )
    for one, other in zip(ours, theirs, strict=True):
        factors = torch.randn(one.shape, generator=drawn)
        total[0], total[1] = total[0] + (factors * one).sum(), total[1] + (factors * other).sum()
    close(ours, theirs)
    changed = [(one - other).abs().max() for one, other in zip(ours, embed_by_library(plain), strict=True)]
    assert max(changed) > 1e-3
    for one in total:
        one.backward()
    found = dict(encoder.module.named_parameters())
    for name, half in halves.items():
        torch.testing.assert_close(found[name].grad, half.grad, rtol=1e-4, atol=1e-5)
        assert half.grad.abs().max() > 1e-3
    assert all(p.grad is None for name, p in found.items() if name not in halves)


class _Call(torch.nn.Module):
    """Calls one method of a model, for `functional_call`."""

    def __init__(self, model, kind):
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, values):
        return getattr(self.model, self.kind)(values)


OTHERS = {
    **{name: config for name, config in TOWERS.items() if config not in (RESNET, TIMM_VIT)},
    "custom text": variant(custom_text=True),
    "biased projection": variant(text_cfg={"proj_bias": True}),
}


@pytest.mark.parametrize("name", [*OTHERS, "ResNet", "timm ViT, SigLIP's text tower"])
def test_adapters_of_other_towers_are_merged_exactly(peft, tmp_path, name):
    write_folder(tmp_path / "model", {**TOWERS, **OTHERS}[name])
    encoder = saved(tmp_path / "model", tmp_path / "own")
    found = given.load(given.find(str(tmp_path / "own")))
    close(embed(found), embed(encoder))
    plain = embed(given.load(given.find(str(tmp_path / "model"))))
    changed = [(a - b).abs().max() > 1e-3 for a, b in zip(embed(found), plain, strict=True)]
    # a ResNet has convolutions in its blocks, which are not adapted
    assert changed == ["ResNet" not in name, True]


def test_a_projection_that_is_a_layer_can_be_adapted(peft, tmp_path):
    write_folder(tmp_path / "model", variant(text_cfg={"proj_bias": True}))
    encoder = saved(tmp_path / "model", tmp_path / "own", lora={"targets": ["text_projection"]})
    assert set(trained_of(encoder)) == expected_names(["text_projection"])
    close(embed(given.load(given.find(str(tmp_path / "own")))), embed(encoder))


# ---- training


def lora_fit(base, folder, **changes):
    begun = start(base, **changes)
    return fit(folder, encoder=begun.create(0), **{**settings(), "lr": 0.02, **changes}), begun


def test_training_moves_the_adapters_and_not_one_bit_of_the_base(base, tmp_path):
    before = weights(openclip.load(base).module)
    encoder = start(base).create(0)
    first = weights(encoder.module)
    fit(tmp_path, encoder=encoder, lr=0.02, **settings())
    after = weights(encoder.module)
    names = expected_names(matrices(openclip.load(base).module))
    assert {name for name in after if not torch.equal(after[name], first[name])} == names
    own = {name.replace(".base_layer", ""): tensor for name, tensor in after.items() if ".lora_" not in name}
    assert set(own) == set(before)
    assert all(torch.equal(own[name], before[name]) for name in before)
    assert {file.name for file in tmp_path.iterdir()} == {*adapters.FILES, "log.jsonl", "record.json"}
    state = load_file(tmp_path / adapters.WEIGHTS_FILE)
    for name in names:
        assert torch.equal(state["base_model.model." + name.replace(".default", "")], after[name])


def test_a_killed_training_ends_with_the_same_bytes(base, tmp_path):
    lora_fit(base, tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        fit(
            tmp_path / "cut",
            encoder=start(base).create(0),
            file=tmp_path / CHECKPOINT_FILE,
            stop_after=4,
            lr=0.02,
            **settings(),
        )
    fit(tmp_path / "cut", encoder=start(base).create(0), file=tmp_path / CHECKPOINT_FILE, lr=0.02, **settings())
    for name in (*adapters.FILES, "log.jsonl", "record.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# ---- files


def test_saved_adapters_name_their_base(base, tmp_path):
    saved(base, tmp_path)
    document = json.loads((tmp_path / "base.json").read_text())
    names = ("open_clip_config.json", "open_clip_model.safetensors")
    assert document == {"address": str(base.resolve()), "files": {name: file_sha256(base / name) for name in names}}
    model = given.find(str(tmp_path))
    assert model.adapted
    assert given.content(model) == {name: file_sha256(tmp_path / name) for name in sorted(adapters.FILES)}
    assert given.find(f"transformers:{tmp_path}").adapted


def test_merged_weights_are_the_sum_entry_by_entry(base, tmp_path):
    saved(base, tmp_path)
    plain, state = weights(openclip.load(base).module), load_file(tmp_path / adapters.WEIGHTS_FILE)
    found = weights(given.load_saved(tmp_path).module)
    assert list(found) == list(plain)
    at = "base_model.model.visual.transformer.resblocks.1"
    for key, path in (
        ("attn.in_proj_weight", "attn"),
        ("mlp.c_fc.weight", "mlp.c_fc"),
        ("mlp.c_proj.weight", "mlp.c_proj"),
    ):
        one, two = state[f"{at}.{path}.lora_A.weight"], state[f"{at}.{path}.lora_B.weight"]
        old, new = (kind[f"visual.transformer.resblocks.1.{key}"] for kind in (plain, found))
        for i in range(0, len(old), 13):
            for j in range(0, old.shape[1], 7):
                total = float(old[i, j]) + 7.5 / 3 * sum(float(two[i, k]) * float(one[k, j]) for k in range(3))
                assert float(new[i, j]) == pytest.approx(total, abs=1e-5)
    same = {name for name in plain if torch.equal(plain[name], found[name])}
    adapted = {
        name + ("in_proj_weight" if name.endswith(".") else ".weight") for name in matrices(openclip.load(base).module)
    }
    assert same == set(plain) - adapted


@pytest.mark.parametrize("targets", [(), ("attn",), ("c_fc",)])
def test_peft_loads_open_clips_model_with_them(peft, base, tmp_path, targets):
    encoder = saved(base, tmp_path, lora={"targets": targets})
    model = open_clip.create_model(f"local-dir:{base}")
    theirs = peft.PeftModel.from_pretrained(model.eval(), tmp_path)
    plain = OpenClipEncoder(model, encoder.config, encoder._tokenizer)
    expected = embed_by_library(plain)
    close(expected, embed(encoder))
    close(expected, embed(given.load_saved(tmp_path)))
    with theirs.disable_adapter():
        assert (embed_by_library(plain)[0] - expected[0]).abs().max() > 1e-3


def test_loading_needs_no_peft(base, tmp_path, monkeypatch):
    encoder = saved(base, tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    close(embed(given.load(given.find(str(tmp_path)))), embed(encoder))
    with pytest.raises(InputError) as error:
        start(base).create(0)
    assert error.value.what == "[train] adapter = 'lora'"
    assert ".[hf]" in error.value.hint


def test_adapters_on_adapters(base, tmp_path):
    first = saved(base, tmp_path / "1")
    second = start(tmp_path / "1").create(9)
    assert set(trained_of(second)) == set(trained_of(first))
    close(embed(second), embed(first))
    moved(second, std=0.1).save(tmp_path / "2")
    assert json.loads((tmp_path / "2" / "base.json").read_text())["address"] == str((tmp_path / "1").resolve())
    found = given.load_saved(tmp_path / "2")
    close(embed(found), embed(second))
    assert (embed(found)[0] - embed(first)[0]).abs().max() > 1e-3


# ---- bad input


def refused(call):
    with pytest.raises(InputError) as error:
        call()
    return error.value


@pytest.mark.parametrize(
    ("targets", "hint"),
    [
        (["c_fcc"], "Did you mean 'c_fc'?"),
        (["attn", "q_proj"], "Did you mean 'c_proj'?"),
        (["ln_1"], "Known modules: attn, c_fc, c_proj."),
        (["out_proj"], "Did you mean 'c_proj'?"),  # inside of torch's attention, which does not call it
        (["ttn"], "Did you mean 'attn'?"),  # no end of a name, but of a word
    ],
)
def test_targets_that_name_nothing(base, targets, hint):
    error = refused(start(base, lora={"targets": targets}).describe)
    assert (error.what, error.got) == ("[train.lora] targets", f"{targets[-1]!r}, which names none")
    assert error.hint == hint


def test_a_model_without_linear_layers_in_its_blocks(peft, tmp_path):
    write_folder(tmp_path / "model", RESNET)
    begun = start(tmp_path / "model", freeze=("text",))
    assert refused(begun.describe).what == "[train] freeze"


def test_dropout_before_joint_matrices(base):
    error = refused(start(base, lora={"dropout": 0.1}).describe)
    assert (error.what, error.hint) == ("[train.lora] dropout", "Set train.lora.dropout to 0.")
    assert "0.1" in error.got
    encoder = start(base, lora={"dropout": 0.5, "targets": ["c_fc"]}).create(0)
    moved(encoder).module.train()
    assert not torch.equal(embed(encoder)[0], embed(encoder)[0])


def changed_weights(folder, change):
    state = load_file(folder / "open_clip_model.safetensors")
    change(state)
    save_file(state, folder / "open_clip_model.safetensors")


def test_a_base_that_changed_or_is_gone(base, tmp_path):
    shutil.copytree(base, tmp_path / "model")
    saved(tmp_path / "model", tmp_path / "own")
    there = file_sha256(tmp_path / "model" / "open_clip_model.safetensors")[:16]
    changed_weights(tmp_path / "model", lambda state: state["logit_scale"].add_(1))
    now = file_sha256(tmp_path / "model" / "open_clip_model.safetensors")[:16]
    model = given.find(str(tmp_path / "own"))
    error = refused(lambda: given.load(model))
    assert error.what == f"model {str(tmp_path / 'own')!r}"
    assert "open_clip_model.safetensors" in error.got
    assert (now in error.got, error.expected) == (True, f"SHA-256 {there}")
    shutil.rmtree(tmp_path / "model")
    error = refused(lambda: given.load(model))
    assert "no such folder" in error.got
    assert "base.json" in error.hint


DAMAGED = {
    "base.json is not JSON": (adapters.BASE_FILE, lambda _: "{"),
    "base.json without an address": (adapters.BASE_FILE, lambda old: json.dumps({"files": json.loads(old)["files"]})),
    "base.json with a list": (adapters.BASE_FILE, lambda _: '{"address": "x", "files": []}'),
    "no LoRA": (adapters.CONFIG_FILE, lambda old: old.replace('"LORA"', '"LOHA"')),
    "another formula": (adapters.CONFIG_FILE, lambda old: old.replace('"use_dora": false', '"use_dora": true')),
    "no rank": (adapters.CONFIG_FILE, lambda old: old.replace('"r": 3', '"r": 0')),
    "config is not JSON": (adapters.CONFIG_FILE, lambda _: "x"),
    "weights cut off": (adapters.WEIGHTS_FILE, lambda old: old[: len(old) // 2]),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_folders(base, tmp_path, case):
    name, change = DAMAGED[case]
    saved(base, tmp_path / "own")
    file = tmp_path / "own" / name
    if name == adapters.WEIGHTS_FILE:
        file.write_bytes(change(file.read_bytes()))
    else:
        file.write_text(change(file.read_text()))
    error = refused(lambda: given.load_saved(tmp_path / "own"))
    assert str(tmp_path / "own") in error.what
    assert error.expected == "adapters saved by clipmem"


def test_adapters_of_other_modules_or_shapes(base, tmp_path):
    saved(base, tmp_path / "own")
    file = tmp_path / "own" / adapters.WEIGHTS_FILE
    state = load_file(file)
    key = next(name for name in state if name.endswith("c_fc.lora_B.weight"))
    for other in (
        {**state, key: state[key][:-1]},
        {
            **state,
            key.replace("c_fc", "c_none"): state[key].clone(),
            key.replace("c_fc.lora_B", "c_none.lora_A"): state[key].T.clone(),
        },
        {**state, key.replace("lora_B.weight", "lora_magnitude_vector"): state[key].clone()},
        {name: tensor for name, tensor in state.items() if name != key},
    ):
        save_file({name: tensor.contiguous() for name, tensor in other.items()}, file)
        assert refused(lambda: given.load_saved(tmp_path / "own")).expected == "adapters saved by clipmem"


def test_adapters_with_nan(base, tmp_path):
    saved(base, tmp_path / "own")
    file = tmp_path / "own" / adapters.WEIGHTS_FILE
    state = load_file(file)
    state["base_model.model.transformer.resblocks.0.attn.lora_B.weight"][0, 0] = torch.nan
    save_file(state, file)
    error = refused(lambda: given.load_saved(tmp_path / "own"))
    assert error.got == "NaN or infinity in 1 of its weights, the first transformer.resblocks.0.attn.in_proj_weight"


def test_adapters_that_are_their_own_base(base, tmp_path):
    saved(base, tmp_path / "own")
    (tmp_path / "own" / "base.json").write_text(json.dumps({"address": str(tmp_path / "own"), "files": {}}))
    assert "adapter_config.json" in refused(lambda: given.load_saved(tmp_path / "own")).got


def test_a_deep_copy_keeps_its_own_adapters(base):
    encoder = moved(start(base).create(0))
    encoder.module.eval()
    other = OpenClipEncoder(copy.deepcopy(encoder.module), encoder.config, encoder._tokenizer)
    expected = embed(encoder)
    moved(encoder, std=1.0)
    close(embed(other), expected, atol=0)
    assert not torch.equal(embed(encoder)[0], expected[0])
    assert parts_of(other) == parts_of(encoder)
