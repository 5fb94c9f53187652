"""Training of transformers' models: CLIP and SigLIP with either loss, saved folders, and adapters."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from clipmem.models import given
from clipmem.models.protocol import DualEncoder
from clipmem.models.start import parts_of
from tests.unit.models.test_adapters import embed, expected_names, moved, start, trained_of
from tests.unit.models.test_transformers import (
    CAPTIONS,
    KINDS,
    by_hand,
    folders,  # noqa: F401  a fixture
    library,  # noqa: F401  a fixture
    squares,
)
from tests.unit.train.test_checkpoint import fit

# peft reads a name of transformers that is deprecated
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer_config.json"}
TRAINING = {"lr": 0.01, "epochs": 1}


def loaded(folder):
    return given.load(given.find(f"transformers:{folder}"))


def changed(before, encoder):
    return {name for name, value in encoder.module.state_dict().items() if not torch.equal(value, before[name])}


def state_of(encoder):
    return {name: value.clone() for name, value in encoder.module.state_dict().items()}


@pytest.mark.parametrize("objective", ["clip", "siglip"])
@pytest.mark.parametrize("name", ["CLIP", "SigLIP", "SigLIP with a mask", "SigLIP 2"])
def test_a_trained_model_is_saved_as_the_library_loads_it(library, folders, tmp_path, name, objective, capfd):  # noqa: F811
    encoder = loaded(folders[name])
    before = state_of(encoder)
    written = fit(tmp_path, encoder=encoder, objective=objective, **TRAINING)
    assert capfd.readouterr().err == ""  # no progress bar of the library
    moving = changed(before, encoder)
    used = {"logit_scale"} | ({"logit_bias"} if objective == "siglip" and name != "CLIP" else set())
    # the key's bias cancels in the softmax; position tables have rows beyond these captions
    still = {key for key in before if key not in moving}
    assert used <= moving
    assert all(key.endswith(("k_proj.bias", "position_ids", "logit_bias")) for key in still), still
    assert {file.name for file in written} >= FILES
    # the folder alone, by address and as a model of a run
    for again in (loaded(tmp_path), given.load_saved(tmp_path)):
        assert isinstance(again, DualEncoder)
        assert all(
            torch.equal(value, again.module.state_dict()[key]) for key, value in encoder.module.state_dict().items()
        )
        assert torch.equal(again.tokenize(CAPTIONS), encoder.tokenize(CAPTIONS))
        assert (again.mean, again.std, again.resize_mode) == (encoder.mean, encoder.std, encoder.resize_mode)
    with torch.no_grad():
        ours = encoder.module.eval() and encoder.encode_text(encoder.tokenize(CAPTIONS))
    theirs, _ = by_hand(library, tmp_path, CAPTIONS, squares(encoder.image_size))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    content = given.content(given.find(f"transformers:{tmp_path}"))
    assert set(content) >= FILES
    assert "objective.safetensors" not in content


def test_naflex_models_train(folders, tmp_path):  # noqa: F811
    encoder = loaded(folders["SigLIP 2, NaFlex"])
    before = state_of(encoder)
    assert encoder.tokens == 257
    loss = (encoder.encode_image(torch.rand(2, 3, 256, 256)) * encoder.encode_text(encoder.tokenize(["a", "b"]))).sum()
    loss.backward()
    assert all(p.grad is not None for name, p in encoder.module.named_parameters() if not name.startswith("logit_"))
    encoder.save(tmp_path)
    assert not changed(before, loaded(tmp_path))


def test_losses_are_those_of_the_library_s_features(library, folders, tmp_path):  # noqa: F811
    """The first logged loss of SigLIP starts at the model's own scale and bias."""
    encoder = loaded(folders["SigLIP"])
    with torch.no_grad():
        encoder.module.logit_scale.fill_(math.log(3.0))
        encoder.module.logit_bias.fill_(-2.5)
    seen = []
    inner, other = encoder.encode_image, encoder.encode_text
    encoder.encode_image = lambda pixels: seen.append(inner(pixels)) or seen[-1]
    encoder.encode_text = lambda tokens: seen.append(other(tokens)) or seen[-1]
    fit(tmp_path, encoder=encoder, objective="siglip", **TRAINING)
    u, v = (torch.nn.functional.normalize(one.detach().double()).tolist() for one in seen[:2])
    total = 0.0
    for i in range(len(u)):
        for j in range(len(u)):
            logit = 3.0 * sum(a * b for a, b in zip(u[i], v[j], strict=True)) - 2.5
            total += math.log1p(math.exp(-logit if i == j else logit)) / len(u)
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(total, rel=1e-5)
    # the trained bias is in the model again
    assert encoder.module.logit_bias.shape == (1,)
    assert (
        encoder.module.logit_bias.item() == load_file(tmp_path / "objective.safetensors")["logit_bias"].item() != -2.5
    )


def test_what_the_training_loop_needs(folders):  # noqa: F811
    clip, siglip = loaded(folders["CLIP"]), loaded(folders["SigLIP"])
    assert (clip.context, clip.tokens, siglip.context, siglip.tokens) == (77, 77, 64, 64)
    rows = clip.tokenize(["a", "a photo of the red cat"])
    padded = torch.nn.functional.pad(rows, (0, 9))
    assert torch.equal(clip.trim(padded), rows)
    assert torch.equal(clip.trim(padded[:1]), clip.tokenize(["a"]))
    tokens = siglip.tokenize(["a"])
    assert siglip.trim(tokens) is tokens
    for encoder in (clip, siglip):
        towers = {name.split(".")[0]: part.tower for name, part in parts_of(encoder).items()}
        expected = {
            "vision_model": "image",
            "visual_projection": "image",
            "text_model": "text",
            "text_projection": "text",
        }
        assert towers == {name: expected.get(name, "") for name in towers}
        assert {part.block for part in parts_of(encoder).values()} == {-1, 0, 1}
        encoder.set_logit_scale(20.0)
        assert encoder.logit_scale().item() == pytest.approx(20)
        before = state_of(encoder)
        assert encoder.compact_vocabulary(encoder.tokenize(["a"])) == ""
        encoder.expand_vocabulary(0.5)
        assert not changed(before, encoder)


# ---- adapters

BLOCKS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@pytest.mark.parametrize("name", KINDS)
def test_peft_loads_the_library_s_model_with_them(library, folders, tmp_path, name):  # noqa: F811
    peft = pytest.importorskip("peft", reason="the extra hf is not installed")
    encoder = moved(start(f"transformers:{folders[name]}").create(0))
    encoder.module.eval()
    names = [
        f"{tower}_model.encoder.layers.{k}.{end}" for tower in ("vision", "text") for k in (0, 1) for end in BLOCKS
    ]
    trained = trained_of(encoder)
    assert set(trained) == expected_names(names)
    plain = dict(loaded(folders[name]).module.named_parameters())
    assert sum(trained.values()) == sum(3 * sum(plain[f"{one}.weight"].shape) for one in names)
    encoder.save(tmp_path)
    found = given.load(given.find(str(tmp_path)))
    own = loaded(folders[name])
    theirs = peft.PeftModel.from_pretrained(own.module, tmp_path)
    for other in (found, own):
        for one, expected in zip(embed(other), embed(encoder), strict=True):
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)
    with theirs.disable_adapter():
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(embed(own), embed(found), strict=True))


def test_joint_attention_of_siglip_s_head(folders, tmp_path):  # noqa: F811
    peft = pytest.importorskip("peft", reason="the extra hf is not installed")
    targets = {"targets": ["head.attention", "head.mlp.fc1", "out_proj"]}
    encoder = moved(start(f"transformers:{folders['SigLIP']}", lora=targets).create(0))
    encoder.module.eval()
    # torch's attention does not call its own out_proj
    names = [f"{tower}_model.encoder.layers.{k}.self_attn.out_proj" for tower in ("vision", "text") for k in (0, 1)]
    names += ["vision_model.head.attention", "vision_model.head.mlp.fc1"]
    assert set(trained_of(encoder)) == expected_names(names)
    encoder.save(tmp_path)
    own = loaded(folders["SigLIP"])
    peft.PeftModel.from_pretrained(own.module, tmp_path)
    for other in (own, given.load_saved(tmp_path)):
        for one, expected in zip(embed(other), embed(encoder), strict=True):
            torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)


def test_trained_adapters_can_be_scored(folders, tmp_path):  # noqa: F811
    pytest.importorskip("peft", reason="the extra hf is not installed")
    encoder = start(f"transformers:{folders['CLIP']}").create(0)
    before = state_of(encoder)
    fit(tmp_path, encoder=encoder, lr=0.02, adapter="lora", epochs=2)
    assert changed(before, encoder) == set(trained_of(encoder))
    encoder.module.eval()
    for one, expected in zip(embed(given.load_saved(tmp_path)), embed(encoder), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-5)
