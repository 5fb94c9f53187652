"""Objectives: each loss against a loop from its equation, what each of them trains, and what it leaves alone."""

import copy
import json
import math

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed
from clipmem.base.recipes import load_recipe
from clipmem.base.sections import TrainSection
from clipmem.data.decoding import decode
from clipmem.data.views import draw_crops, normalize_pixels, pair_keys, render
from clipmem.models import openclip
from clipmem.models.openclip import OpenClipEncoder, sigmoid_loss
from clipmem.models.protocol import embedding_width
from clipmem.train import loop
from clipmem.train.batches import Batches, TrainingData, epoch_crops, tokenize
from clipmem.train.loop import train
from clipmem.train.objectives import OBJECTIVES, Towers, class_head, create_objective
from clipmem.train.objectives.base import OBJECTIVE_FILE
from clipmem.train.objectives.contrastive import SigLip
from clipmem.train.objectives.image_only import SimClr, Supervised, nt_xent
from clipmem.train.paired import TrainingSet
from clipmem.train.record import describe, state_hash
from tests.tiny import encoded_image

N = 12
NAMES = ("clip", "siglip", "simclr", "supervised")
PIXELS = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
UIDS = tuple(f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(N))
LABELS = np.arange(N) % 3
OWN_FILE = "objective.safetensors"


def data_of(labels=LABELS, classes=0):
    captions = [[f"thing number {k}", f"number {k}"] for k in range(N)]
    return TrainingData(PIXELS, np.arange(N), captions, labels, classes)


def section(objective, **changes):
    changes = {"epochs": 2, "batch_size": 6, "captions": 2, "crop_scale": (0.3, 0.9), "flip": 0.5, **changes}
    return TrainSection(objective=objective, **changes)


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


@pytest.fixture
def fresh(micro):
    return lambda: OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)


def run(encoder, folder, settings, *, data=None, seed=0, precision="fp32"):
    plan = TrainingSet("f", seed, UIDS, N)
    return train(Towers(encoder, precision), data or data_of(), plan, settings, folder)


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def unit_rows(n, d, seed):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


# ---- the losses


@given(n=st.integers(1, 7), d=st.integers(1, 6), seed=st.integers(0, 99), s=st.floats(0.1, 30), b=st.floats(-12, 5))
def test_siglip_is_its_equation(n, d, seed, s, b):
    u, v = unit_rows(n, d, seed), unit_rows(n, d, seed + 100)
    total = 0.0
    for i in range(n):
        for j in range(n):
            z = 1 if i == j else -1
            total += math.log1p(math.exp(-z * (s * dot(u[i], v[j]) + b)))
    scale, bias = (torch.tensor(x, dtype=torch.float64) for x in (s, b))
    assert float(sigmoid_loss(u, v, scale, bias)) == pytest.approx(total / n, rel=1e-9)


@given(n=st.integers(2, 7), d=st.integers(1, 6), seed=st.integers(0, 99), t=st.floats(0.05, 5))
def test_nt_xent_is_its_equation(n, d, seed, t):
    first, second = unit_rows(n, d, seed), unit_rows(n, d, seed + 100)
    z = [*first, *second]
    total = 0.0
    for image_number in range(n):
        for i, j in ((image_number, image_number + n), (image_number + n, image_number)):
            below = math.fsum(math.exp(dot(z[i], z[k]) / t) for k in range(2 * n) if k != i)
            total -= math.log(math.exp(dot(z[i], z[j]) / t) / below)
    assert float(nt_xent(first, second, t)) == pytest.approx(total / (2 * n), rel=1e-8, abs=1e-12)
    assert float(nt_xent(second, first, t)) == pytest.approx(total / (2 * n), rel=1e-8, abs=1e-12)


def first_batch(encoder, views):
    """Return what the first step sees, and the towers' embeddings of it as float64 lists."""
    settings = section("simclr", batch_size=N)
    texts = tokenize(encoder, data_of().captions)
    plan = TrainingSet("f", 0, UIDS, N)
    batch = next(Batches(Towers(encoder, "fp32", "cpu"), views, data_of(), texts, plan, settings).of_steps())
    encoder.module.train()
    with torch.no_grad():
        images = [encoder.encode_image(view).double().tolist() for view in batch.views]
        text = encoder.encode_text(batch.tokens).double().tolist()
    return batch, images, text


def normalized(rows):
    return [[x / math.hypot(*row) for x in row] for row in rows]


def objective_for(name, encoder, *, seed=5, labels=LABELS):
    return create_objective(encoder, section(name), labels=labels, classes=0, n=N, seed=seed)


def test_supervised_is_its_equation(micro):
    batch, (image,), _ = first_batch(micro, 1)
    head = objective_for("supervised", micro)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
    weight, bias = head.weight.double().tolist(), head.bias.double().tolist()
    total = 0.0
    for row, label in zip(image, batch.labels.tolist(), strict=True):
        scores = [dot(w, row) + b for w, b in zip(weight, bias, strict=True)]
        total -= math.log(math.exp(scores[label]) / math.fsum(math.exp(x) for x in scores))
    loss = head(Towers(micro, "fp32", "cpu"), batch.views, batch.tokens, batch.labels)
    assert loss.item() == pytest.approx(total / N, rel=1e-5)


def test_first_logged_loss_of_simclr_and_siglip_is_the_equation(micro, fresh, tmp_path):
    _, (first, second), text = first_batch(micro, 2)
    z = normalized(first) + normalized(second)
    simclr = 0.0
    for i in range(2 * N):
        below = math.fsum(math.exp(dot(z[i], z[k]) / 0.5) for k in range(2 * N) if k != i)
        simclr -= math.log(math.exp(dot(z[i], z[(i + N) % (2 * N)]) / 0.5) / below) / (2 * N)
    u, v, siglip = normalized(first), normalized(text), 0.0
    for i in range(N):
        for j in range(N):
            siglip += math.log1p(math.exp((-1 if i == j else 1) * (10 * dot(u[i], v[j]) - 10))) / N
    for name, expected in (("simclr", simclr), ("siglip", siglip)):
        run(fresh(), tmp_path / name, section(name, batch_size=N, simclr_temperature=0.5, epochs=1))
        assert losses_of(tmp_path / name)[0] == pytest.approx(expected, rel=1e-5)


# ---- training


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss(fresh, tmp_path, name):
    mild = {"crop_scale": (0.9, 1.0), "flip": 0.0}
    run(fresh(), tmp_path, section(name, epochs=20, lr=3e-3, **mild))
    losses = losses_of(tmp_path)
    assert len(losses) == 40
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


@pytest.mark.parametrize("name", NAMES)
def test_same_call_twice_gives_the_same_bytes(fresh, tmp_path, name):
    for number, folder in enumerate(("a", "b")):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        files = run(fresh(), tmp_path / folder, section(name), seed=2)
        assert torch.equal(torch.get_rng_state(), before)
        assert sorted(file.name for file in files) == sorted(path.name for path in (tmp_path / folder).iterdir())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained(micro, fresh, tmp_path, name):
    encoder = fresh()
    run(encoder, tmp_path, section(name, weight_decay=0.5, lr=5e-3))
    before, after = micro.module.state_dict(), encoder.module.state_dict()
    same = {key for key in before if torch.equal(before[key], after[key])}
    learned = {key for key, _ in micro.module.named_parameters()}
    if name in ("clip", "siglip"):
        assert not same & learned
        unused = torch.ones(len(before["token_embedding.weight"]), dtype=torch.bool)
        unused[encoder.tokenize([text for own in data_of().captions for text in own]).flatten()] = False
        assert not torch.equal(before["token_embedding.weight"][unused], after["token_embedding.weight"][unused])
    else:  # no gradient, no decay, no clamp outside the image tower
        assert learned & same == {key for key in learned if not key.startswith("visual.")}
        assert {"token_embedding.weight", "logit_scale"} <= same


def test_scale_is_left_alone_without_text(fresh, tmp_path):
    encoder = fresh()
    with torch.no_grad():
        encoder.module.logit_scale.fill_(9.0)  # the contrastive losses would clamp it to log 100
    run(encoder, tmp_path, section("simclr", epochs=1))
    assert encoder.module.logit_scale.item() == 9.0


@pytest.mark.parametrize("name", NAMES)
def test_open_clip_loads_the_folder(fresh, tmp_path, name):
    encoder = fresh()
    run(encoder, tmp_path, section(name))
    with torch.random.fork_rng(devices=[]):
        model = open_clip.create_model(f"local-dir:{tmp_path}")
    assert state_hash(model) == state_hash(encoder.module)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["final_sha256"] == state_hash(model)
    assert record["objective"] == name
    assert (record["views"], record["samples_seen"]) == (2 if name == "simclr" else 1, 2 * N)
    own = {"siglip": {"logit_bias"}, "supervised": {"weight", "bias"}}.get(name, set())
    assert (tmp_path / OWN_FILE).exists() == bool(own) == ("objective_sha256" in record)
    assert set(load_file(tmp_path / OWN_FILE) if own else {}) == own


def test_every_objective_starts_from_the_same_model_and_sees_the_same_order(fresh, tmp_path):
    records = []
    for name in NAMES:
        run(fresh(), tmp_path / name, section(name, epochs=1))
        records.append(json.loads((tmp_path / name / "record.json").read_text()))
    for key in ("init_sha256", "shared_order_sha256", "steps", "samples_seen"):
        assert len({record[key] for record in records}) == 1, key
    assert len({record["settings_sha256"] for record in records}) == 4


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_close_to_fp32(fresh, tmp_path, name):
    losses = []
    for precision in ("fp32", "bf16"):
        run(fresh(), tmp_path / precision, section(name, epochs=1), precision=precision)
        losses.append(losses_of(tmp_path / precision))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


# ---- siglip


def test_siglip_starts_at_its_published_values(fresh, tmp_path):
    encoder = fresh()
    objective = SigLip()
    objective.prepare(encoder)
    assert objective.logit_bias.item() == -10
    assert encoder.logit_scale().item() == pytest.approx(10)
    run(encoder, tmp_path, section("siglip", lr=5e-3))
    trained = load_file(tmp_path / OWN_FILE)["logit_bias"].item()
    assert trained != -10
    assert abs(trained + 10) < 0.1


def test_siglip_bias_is_not_decayed(micro):
    named = loop._trained(micro, SigLip())
    optimizer = loop._optimizer(named, {}, section("siglip", weight_decay=0.3))
    of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert of[id(dict(named)["objective.logit_bias"])] == 0.0
    head = Supervised(4, 3, seed=0)
    named = loop._trained(micro, head)
    optimizer = loop._optimizer(named, {}, section("supervised", weight_decay=0.3))
    of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert (of[id(head.weight)], of[id(head.bias)]) == (0.3, 0.0)


# ---- supervised


def test_head_starts_from_seed_and_class_only():
    three, five = Supervised(16, 3, seed=4), Supervised(16, 5, seed=4)
    assert torch.equal(three.weight, five.weight[:3])
    assert not torch.equal(three.weight, Supervised(16, 3, seed=5).weight)
    assert not torch.equal(five.weight[0], five.weight[1])
    assert five.bias.abs().max() == 0
    wide = Supervised(10000, 2, seed=0).weight
    assert wide.abs().max() <= 0.01
    assert wide.std().item() == pytest.approx(0.01 / math.sqrt(3), rel=0.03)


def test_trained_head_comes_back(fresh, tmp_path):
    encoder = fresh()
    run(encoder, tmp_path, section("supervised"), data=data_of(classes=5))
    state = load_file(tmp_path / OBJECTIVE_FILE)
    width = embedding_width(encoder)
    assert state["weight"].shape == (5, width)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["classes"] == 5
    start = Supervised(width, 5, seed=derive_seed(0, "objective"))
    moved = (state["weight"] - start.weight).abs().max().item()
    assert 0 < moved < 0.1
    image, head = torch.ones(2, width), class_head(tmp_path)
    assert torch.equal(head(image), image @ state["weight"].T + state["bias"])
    assert class_head(tmp_path / "none") is None


def test_labels_follow_their_images(micro):
    settings, plan = section("supervised", batch_size=5), TrainingSet("f", 0, UIDS, N)
    texts = tokenize(micro, data_of().captions)
    data = data_of(labels=np.arange(N) + 100)
    seen, towers = [], Towers(micro, "fp32", "cpu")
    for number, batch in enumerate(Batches(towers, 1, data, texts, plan, settings).of_steps()):
        slots = plan.batches(5, number // 3)[number % 3]
        assert batch.labels.tolist() == (slots + 100).tolist()
        seen += batch.labels.tolist()
    assert sorted(seen) == sorted([*range(100, 100 + N)] * 2)


def test_number_of_classes_is_part_of_the_settings_hash(micro):
    def settings_hash(classes):
        objective = Supervised(4, classes, seed=0)
        plan = TrainingSet("f", 0, UIDS, N)
        record = describe(Towers(micro, "fp32", "cpu"), objective, plan, section("supervised"), 1)
        return record["settings_sha256"]

    assert settings_hash(3) == settings_hash(3) != settings_hash(4)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            None,
            0,
            "[train] objective = 'supervised': got pairs without labels, expected a class index for every pair. "
            "Set data.label_column, or choose another objective.",
        ),
        (
            LABELS - 1,
            0,
            "labels: got values from -1 to 1, expected class indices from 0 to 1. "
            "Number the classes from 0, and omit pairs without a class.",
        ),
        (
            LABELS,
            2,
            "labels: got values from 0 to 2, expected class indices from 0 to 1. "
            "Number the classes from 0, and omit pairs without a class.",
        ),
        (LABELS * 0, 0, "labels: got one class, expected two or more. Choose a column with several classes."),
    ],
)
def test_labels_that_do_not_do(fresh, tmp_path, labels, classes, message):
    encoder = fresh()
    before = state_hash(encoder.module)
    with pytest.raises(InputError) as caught:
        run(encoder, tmp_path, section("supervised"), data=data_of(labels, classes))
    assert str(caught.value) == message
    assert state_hash(encoder.module) == before
    assert not list(tmp_path.iterdir())
    run(encoder, tmp_path, section("clip", epochs=1), data=data_of(labels, classes))  # others do not look at them


def test_labels_of_another_length(micro):
    with pytest.raises(InputError) as caught:
        objective_for("supervised", micro, labels=LABELS[:5])
    assert str(caught.value) == "labels: got 5 for 12 pairs, expected one per pair. Give every pair its class index."


# ---- simclr


def views_of(keys, *, seed=0, epoch=0, views=2):
    return epoch_crops(keys, seed, epoch, section("simclr"), 32, views)


def test_views_depend_on_seed_epoch_pair_and_view_only():
    keys = pair_keys(UIDS)
    first, second = views_of(keys)
    for axis in range(4):
        assert not np.array_equal(first[axis], second[axis])
    order = np.random.default_rng(0).permutation(N)[:7]
    for whole, some in zip((first, second), views_of(keys[order]), strict=True):
        assert all(np.array_equal(a[order], b) for a, b in zip(whole, some, strict=True))
    (only,) = views_of(keys, views=1)  # the first view is what the other objectives see
    assert all(np.array_equal(a, b) for a, b in zip(first, only, strict=True))
    lefts = [crops.left for seed in (0, 1) for epoch in (0, 1) for crops in views_of(keys, seed=seed, epoch=epoch)]
    assert len({left.tobytes() for left in lefts}) == 8


def test_both_views_of_a_batch_are_of_the_same_pairs(micro):
    batch, _, _ = first_batch(micro, 2)
    slots = TrainingSet("f", 0, UIDS, N).batches(N, 0)[0]
    how = {"size": 32, "scale": (0.3, 0.9), "ratio": section("simclr").crop_ratio, "flip": 0.5}
    for view, seed in zip(batch.views, (derive_seed(0, "view", 0), derive_seed(0, "view", 0, 1)), strict=True):
        crops = draw_crops(pair_keys([UIDS[slot] for slot in slots]), seed=seed, **how)
        expected = render(torch.from_numpy(PIXELS[slots]), crops, size=32)
        assert torch.equal(view, normalize_pixels(expected, micro.mean, micro.std))
    assert not any(torch.equal(a, b) for a, b in zip(*batch.views, strict=True))


# ---- recipe and registry


def test_recipe_and_registry_name_the_same_objectives(micro):
    assert tuple(OBJECTIVES) == NAMES
    assert TrainSection().objective == "clip"
    for name in NAMES:
        settings = [f"train.objective={name}", "score.alignment=sslmem-image"]
        assert load_recipe("", settings).train.objective == name
        assert type(objective_for(name, micro)) is OBJECTIVES[name]
    assert objective_for("simclr", micro).temperature == 0.1
    assert SimClr(0.3).temperature == 0.3


def test_unknown_objective():
    with pytest.raises(InputError) as caught:
        load_recipe('[train]\nobjective = "clib"')
    assert caught.value.got == "'clib'"
    assert caught.value.expected == "'clip', 'siglip', 'supervised' or 'simclr'"
    assert "'clip'" in caught.value.hint
    with pytest.raises(InputError):
        load_recipe("[train]\nsimclr_temperature = 0.0")


def test_width_leaves_the_model_as_it_was():
    encoder = openclip.create("clipmem-micro", seed=1)
    for mode in (True, False):
        encoder.module.train(mode)
        before, state = state_hash(encoder.module), torch.get_rng_state()
        assert embedding_width(encoder) == encoder.config["embed_dim"]
        assert (state_hash(encoder.module), encoder.module.training) == (before, mode)
        assert torch.equal(torch.get_rng_state(), state)
