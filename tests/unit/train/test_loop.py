"""The training loop: who is shown when, what the loss is, and that f and g differ in their own pairs only."""

import copy
import json
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError, RunError
from clipmem.base.random import derive_seed
from clipmem.base.sections import TrainSection
from clipmem.data.decoding import decode
from clipmem.data.views import as_float, distort, draw_crops, normalize_pixels, pair_keys, render
from clipmem.models import openclip
from clipmem.models.numerics import computing, resolve_precision, threads
from clipmem.models.openclip import OpenClipEncoder
from clipmem.train import batches, loop
from clipmem.train.batches import TrainingData
from clipmem.train.loop import Session, learning_rate, train
from clipmem.train.objectives import Towers
from clipmem.train.objectives.contrastive import Clip
from clipmem.train.paired import TrainingSet, check_paired, training_set
from clipmem.train.record import describe, state_hash
from tests.tiny import encoded_image, epoch_batches

N = 18


def uid(k):
    k = int(k)
    return f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}"


PIXELS = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
CAPTIONS = [[f"thing number {k}", f"number {k}"] for k in range(N)]


def section(**changes):
    return TrainSection(**{"epochs": 2, "batch_size": 8, "precision": "fp32", "captions": 2, **changes})


def plan_of(rows, *, side="f", seed=0, shared=None):
    return TrainingSet(side, seed, tuple(uid(k) for k in rows), len(rows) if shared is None else shared)


def data_of(rows):
    return TrainingData(PIXELS, np.array(rows), [CAPTIONS[k] for k in rows])


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


@pytest.fixture
def fresh(micro):
    def make():
        return OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)

    return make


def run(encoder, folder, *, rows=range(N), settings=None, **plan):
    rows = list(rows)
    settings = settings or section()
    return train(Towers(encoder), data_of(rows), plan_of(rows, **plan), settings, folder)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---- caption choice and views


def draws(keys, counts, *, seed=0, epoch=0):
    crops = batches.epoch_crops(keys, seed, epoch, section(), 32)
    return SimpleNamespace(crops=crops, caption=batches.draw_captions(keys, counts, seed=seed, epoch=epoch))


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_captions_are_drawn_about_equally_often(k):
    keys, epochs = pair_keys([uid(i) for i in range(200)]), 30
    counts = np.full(200, k)
    chosen = np.stack([draws(keys, counts, epoch=epoch).caption for epoch in range(epochs)])
    seen = np.bincount(chosen.ravel(), minlength=k)
    assert len(seen) == k
    spread = math.sqrt(200 * epochs * (1 / k) * (1 - 1 / k))
    assert np.abs(seen - 200 * epochs / k).max() <= 5 * spread
    if k > 1:  # and no pair is stuck with one
        assert max(Counter(chosen[:, i]).most_common(1)[0][1] for i in range(200)) < epochs


def test_draws_depend_on_seed_epoch_and_pair_only():
    keys, counts = pair_keys([uid(i) for i in range(60)]), np.arange(60) % 5 + 1
    whole, order = draws(keys, counts), np.random.default_rng(0).permutation(60)[:31]
    some = draws(keys[order], counts[order])
    assert np.array_equal(whole.caption[order], some.caption)
    for a, b in zip(whole.crops[0], some.crops[0], strict=True):
        assert np.array_equal(a[order], b)
    assert (whole.caption < counts).all()
    assert (whole.caption[counts == 1] == 0).all()
    for other in (draws(keys, counts, seed=1), draws(keys, counts, epoch=1)):
        assert not np.array_equal(whole.caption, other.caption)
        assert not np.array_equal(whole.crops[0].left, other.crops[0].left)


def test_tokens_of_each_slot(micro):
    captions = [["a"], ["b b", "c c c"], ["d d d d"]]
    tokens, offsets, counts = batches.tokenize(micro, captions)
    assert (offsets.tolist(), counts.tolist()) == ([0, 1, 3], [1, 2, 1])
    assert torch.equal(tokens[offsets[1] + 1], micro.tokenize(["c c c", "d d d d"])[0])


# ---- f and g


@pytest.fixture
def splits():
    roles = ["shared"] * 10 + ["candidate"] * 4 + ["independent"] * 4
    order = np.random.default_rng(1).permutation(N)
    return pl.DataFrame({"uid": [uid(k) for k in order], "role": [roles[k] for k in order]})


def test_training_sets_of_f_and_g(splits):
    f, g = training_set(splits, "f", 3), training_set(splits, "g", 3)
    assert f.uids[:10] == g.uids[:10] == tuple(sorted(uid(k) for k in range(10)))
    assert set(f.uids[10:]) == {uid(k) for k in range(10, 14)}
    assert set(g.uids[10:]) == {uid(k) for k in range(14, 18)}
    assert f.init_seed == g.init_seed != training_set(splits, "f", 4).init_seed
    assert training_set(splits.sample(fraction=1.0, shuffle=True, seed=5), "f", 3) == f


def test_shared_pairs_are_in_the_same_batches(splits):
    f, g = training_set(splits, "f", 3), training_set(splits, "g", 3)
    shared = set(splits.filter(pl.col("role") == "shared")["uid"])
    own = 0
    for epoch in range(3):
        for batch in epoch_batches(len(f.uids), 4, seed=f.seed, epoch=epoch):
            for slot in batch:
                if f.uids[slot] in shared or g.uids[slot] in shared:
                    assert f.uids[slot] == g.uids[slot]
                else:
                    own += 1
    assert own == 3 * 4


def test_both_trainings_record_the_same(splits, fresh, tmp_path):
    row, records = {uid(k): k for k in range(N)}, {}
    for side in ("f", "g"):
        plan = training_set(splits, side, 3)
        data = data_of([row[one] for one in plan.uids])
        train(Towers(fresh()), data, plan, section(batch_size=5), tmp_path / side)
        records[side] = json.loads((tmp_path / side / "record.json").read_text())
    check_paired(records)
    f, g = records["f"], records["g"]
    assert f["init_sha256"] == g["init_sha256"]
    assert f["final_sha256"] != g["final_sha256"]
    assert f["steps"] == len(log_of(tmp_path / "f")) == 6
    assert f["samples_seen"] == 28
    same = ("steps", "pairs", "samples_seen", "shared_order_sha256", "settings_sha256", "precision", "device")
    assert all(f[key] == g[key] for key in same)
    other = {**records, "g": {**g, "shared_order_sha256": "0"}}
    with pytest.raises(RunError):
        check_paired(other)


def test_a_pair_left_out_is_not_counted(fresh, tmp_path, monkeypatch):
    rows = list(range(14))
    plan = TrainingSet("without", 3, tuple(uid(k) for k in rows), 14, left_out=uid(9))
    encoder = fresh()
    seen = spy_on(encoder, monkeypatch)
    train(Towers(encoder), data_of(rows), plan, section(batch_size=5), tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["pairs"] == 13
    assert record["samples_seen"] == sum(len(images) for images, _ in seen) == 26


def spy_on(encoder, monkeypatch):
    """Collect the images and token ids of every step."""
    seen = []
    image, text = encoder.encode_image, encoder.encode_text
    monkeypatch.setattr(encoder, "encode_image", lambda pixels: [seen.append([pixels.clone()]), image(pixels)][1])
    monkeypatch.setattr(encoder, "encode_text", lambda tokens: [seen[-1].append(tokens.clone()), text(tokens)][1])
    return seen


def test_f_and_g_see_the_same_of_the_shared_pairs(splits, fresh, tmp_path, monkeypatch):
    row, seen = {uid(k): k for k in range(N)}, {}
    settings = section(batch_size=5, crop_scale=(0.3, 0.9), flip=0.5, epochs=3)
    for side in ("f", "g"):
        plan, encoder = training_set(splits, side, 3), fresh()
        seen[side] = spy_on(encoder, monkeypatch)
        data = data_of([row[one] for one in plan.uids])
        train(Towers(encoder), data, plan, settings, tmp_path / side)
    steps = [(epoch, batch) for epoch in range(3) for batch in epoch_batches(14, 5, seed=3, epoch=epoch)]
    assert len(steps) == len(seen["f"]) == len(seen["g"]) == 9
    crop = {"size": 32, "scale": (0.3, 0.9), "ratio": settings.crop_ratio, "flip": 0.5}
    for (epoch, batch), (f_pixels, f_tokens), (g_pixels, g_tokens) in zip(steps, seen["f"], seen["g"], strict=True):
        shared = torch.from_numpy(batch < plan.shared)
        length = min(f_tokens.shape[1], g_tokens.shape[1])
        assert torch.equal(f_pixels[shared], g_pixels[shared])
        uids = [plan.uids[slot] for slot in batch]  # g's; every view is that of the pair in this epoch
        crops = draw_crops(pair_keys(uids), seed=derive_seed(3, "view", epoch), **crop)
        views = render(torch.from_numpy(PIXELS[[row[one] for one in uids]]), crops, size=32)
        assert torch.equal(g_pixels, normalize_pixels(views, encoder.mean, encoder.std))
        assert torch.equal(f_tokens[shared, :length], g_tokens[shared, :length])
        assert not any(torch.equal(a, b) for a, b in zip(f_pixels[~shared], g_pixels[~shared], strict=True))


def test_colors_are_those_of_the_pair_the_epoch_and_the_view(splits, fresh, tmp_path, monkeypatch):
    row = {uid(k): k for k in range(N)}
    colors = {"color": 1.0, "grayscale": 0.3, "blur": 0.5}
    settings = section(
        objective="simclr", batch_size=5, epochs=2, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), **colors
    )
    plan, encoder = training_set(splits, "f", 3), fresh()
    seen, embed = [], encoder.encode_image
    monkeypatch.setattr(encoder, "encode_image", lambda pixels: [seen.append(pixels.clone()), embed(pixels)][1])
    train(Towers(encoder), data_of([row[one] for one in plan.uids]), plan, settings, tmp_path)
    steps = [(epoch, batch) for epoch in range(2) for batch in epoch_batches(14, 5, seed=3, epoch=epoch)]
    how = {"strength": 1.0, "gray": 0.3, "blur": 0.5}
    for (epoch, batch), pixels in zip(steps, seen, strict=True):
        uids = [plan.uids[slot] for slot in batch]
        clean = as_float(torch.from_numpy(PIXELS[[row[one] for one in uids]]))
        for view, shown in enumerate(pixels.chunk(2)):
            seed = derive_seed(3, "colour", epoch, view)
            expected = normalize_pixels(distort(clean, pair_keys(uids), seed=seed, **how), encoder.mean, encoder.std)
            # the whole image as a crop is itself but for rounding
            assert torch.allclose(shown, expected, atol=1e-3)
            assert not torch.allclose(shown, normalize_pixels(clean, encoder.mean, encoder.std), atol=0.1)


def test_every_image_comes_with_a_caption_of_its_own(fresh, tmp_path, monkeypatch):
    encoder = fresh()
    seen = spy_on(encoder, monkeypatch)
    rows = [9, 4, 0, 13, 2, 7, 11]  # slots are not rows
    run(encoder, tmp_path, rows=rows, settings=section(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), epochs=8))
    whole = normalize_pixels(as_float(torch.from_numpy(PIXELS)), encoder.mean, encoder.std)
    found = Counter()
    for pixels, tokens in seen:
        for image_seen, caption_seen in zip(pixels, tokens, strict=True):
            k = int((whole - image_seen).abs().amax(dim=(1, 2, 3)).argmin())
            assert torch.allclose(whole[k], image_seen, atol=1e-4)
            own = [row[row != 0].tolist() for row in encoder.tokenize(CAPTIONS[k])]
            found[k, own.index(caption_seen[caption_seen != 0].tolist())] += 1
    assert set(found) == {(k, caption) for k in rows for caption in (0, 1)}
    assert all(found[k, 0] + found[k, 1] == 8 for k in rows)


def record_of(encoder, **changes):
    plan = {
        "rows": list(range(10)),
        "shared": 6,
        **{k: v for k, v in changes.items() if k in ("rows", "shared", "seed")},
    }
    settings = section(**{k: v for k, v in changes.items() if k in ("lr", "batch_size", "epochs")})
    towers = Towers(encoder, "fp32", "cpu")
    return describe(towers, Clip(), plan_of(plan.pop("rows"), **plan), settings, 4)


def test_record_tells_orders_apart(micro):
    base = record_of(micro)
    swapped, other_own = [1, 0, *range(2, 10)], [*range(6), 11, 12, 13, 14]
    assert record_of(micro, rows=other_own)["shared_order_sha256"] == base["shared_order_sha256"]
    for changes in ({"rows": swapped}, {"shared": 5}, {"seed": 1}, {"batch_size": 4}, {"epochs": 3}):
        assert record_of(micro, **changes)["shared_order_sha256"] != base["shared_order_sha256"], changes
    assert record_of(micro, lr=0.5)["settings_sha256"] != base["settings_sha256"]


@pytest.mark.parametrize("key", ["init_sha256", "steps", "shared_order_sha256", "settings_sha256"])
def test_check_paired_names_what_differs(key):
    record = {"init_sha256": "a", "steps": 4, "shared_order_sha256": "b", "settings_sha256": "c", "seed": 5}
    check_paired({"f": record, "g": {**record, "final_sha256": "x"}})
    with pytest.raises(RunError) as caught:
        check_paired({"f": record, "g": {**record, key: "other"}})
    assert str(caught.value) == (
        f"f and g of seed 5 are not comparable: {key} is {record[key]} for f and other for g. "
        "Delete both model folders and run again."
    )


# ---- the loop


def test_first_loss_is_the_equation(fresh, tmp_path):
    settings = section(epochs=1, batch_size=N, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), captions=1)
    rows = list(range(N))
    data = TrainingData(PIXELS, np.array(rows), [CAPTIONS[k][:1] for k in rows])
    encoder = fresh()
    with torch.inference_mode():
        encoder.module.train()
        pixels = normalize_pixels(as_float(torch.from_numpy(PIXELS)), encoder.mean, encoder.std)
        u = encoder.encode_image(pixels).double().tolist()
        v = encoder.encode_text(encoder.tokenize([CAPTIONS[k][0] for k in rows])).double().tolist()
        scale = float(encoder.logit_scale())
    u, v = ([[x / math.hypot(*row) for x in row] for row in side] for side in (u, v))
    loss = 0.0
    for left, right in ((u, v), (v, u)):
        for i in rows:
            logits = [scale * math.fsum(a * b for a, b in zip(left[i], right[j], strict=True)) for j in rows]
            loss += (math.log(math.fsum(math.exp(x) for x in logits)) - logits[i]) / (2 * N)
    train(Towers(encoder), data, plan_of(rows), settings, tmp_path)
    assert log_of(tmp_path)[0]["loss"] == pytest.approx(loss, rel=1e-5)


def test_training_lowers_the_loss_and_logs_each_step(fresh, tmp_path):
    encoder, seen = fresh(), []
    settings = section(epochs=25, batch_size=9, lr=3e-3)
    rows = list(range(N))
    files = train(
        Towers(encoder),
        data_of(rows),
        plan_of(rows),
        settings,
        tmp_path,
        Session(progress=lambda *values: seen.append(values)),
    )
    assert sorted(file.name for file in files) == sorted(path.name for path in tmp_path.iterdir())
    log = log_of(tmp_path)
    assert [entry["step"] for entry in log] == list(range(1, 51))
    assert [entry["epoch"] for entry in log] == [k // 2 for k in range(50)]
    rates = [learning_rate(k, 50, peak=3e-3, warmup=0.1) for k in range(50)]
    assert [entry["lr"] for entry in log] == pytest.approx(rates)
    losses = [entry["loss"] for entry in log]
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])
    assert abs(losses[0] - math.log(9)) < 1.0
    assert log[-1]["logit_scale"] == pytest.approx(encoder.logit_scale().item())
    assert seen[-1][:2] == (50, 50)
    record = json.loads((tmp_path / "record.json").read_text())
    loaded = openclip.load(tmp_path)
    assert record["final_sha256"] == state_hash(loaded.module) == state_hash(encoder.module)


def test_same_call_twice_gives_the_same_bytes(fresh, tmp_path):
    for number, name in enumerate(("a", "b")):
        torch.manual_seed(number)  # the global state must not matter
        run(fresh(), tmp_path / name, seed=2)
    run(fresh(), tmp_path / "other", seed=3)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    weights = "open_clip_model.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() != (tmp_path / "a" / weights).read_bytes()


def test_training_leaves_the_random_state_alone(fresh, tmp_path):
    before = torch.get_rng_state()
    run(fresh(), tmp_path, settings=section(epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_loss_that_is_not_finite(fresh, tmp_path):
    with pytest.raises(RunError) as caught:
        run(fresh(), tmp_path, side="g", seed=4, settings=section(lr=1e6, weight_decay=1e6, warmup=0.0, epochs=3))
    message = str(caught.value)
    assert message.startswith("training g, seed 4: the loss is nan at step 2 of 9. ")
    assert message.endswith("Try a smaller train.lr, a longer train.warmup, or train.precision = 'fp32'.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("n", "size", "ok"), [(1, 8, False), (3, 2, False), (5, 2, False), (4, 2, True), (5, 3, True)])
def test_batch_of_one_pair_is_refused(fresh, tmp_path, n, size, ok):
    settings = section(batch_size=size, epochs=1)
    if ok:
        assert run(fresh(), tmp_path, rows=range(n), settings=settings)
        return
    with pytest.raises(InputError) as caught:
        run(fresh(), tmp_path, rows=range(n), settings=settings)
    assert str(caught.value) == (
        f"[train] batch_size: got {size} for {n} pairs: a batch of one pair has nothing to contrast. "
        "Use more pairs or another batch size."
    )


def test_grad_clip(fresh, tmp_path, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, largest):
        parameters = list(parameters)
        before = clip(parameters, largest)
        norms.append((float(before), math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters))))
        return before

    monkeypatch.setattr(loop.nn.utils, "clip_grad_norm_", spy)
    weights = {}
    for clipped in (0.0, 1e6, 0.01):
        encoder = fresh()
        run(encoder, tmp_path / str(clipped), settings=section(epochs=1, grad_clip=clipped))
        weights[clipped] = state_hash(encoder.module)
    assert weights[0.0] == weights[1e6] != weights[0.01]
    assert len(norms) == 6  # three steps each, none with grad_clip = 0
    assert [after for _, after in norms[3:]] == pytest.approx([0.01] * 3, rel=1e-3)
    assert min(before for before, _ in norms) > 0.02


def test_weight_decay_groups(micro):
    optimizer = loop._optimizer(micro.module.named_parameters(), {}, section(weight_decay=0.3))
    of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(micro.module.named_parameters())
    assert len(of) == len(named) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, p in named.items():
        # as in open_clip's training script
        plain = p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name
        assert of[id(p)] == (0.0 if plain else 0.3), name
    by_name = {name: of[id(p)] for name, p in named.items()}
    assert by_name["logit_scale"] == by_name["ln_final.weight"] == by_name["visual.ln_pre.bias"] == 0.0
    assert by_name["token_embedding.weight"] == by_name["visual.conv1.weight"] == by_name["text_projection"] == 0.3
    assert {(g["betas"], g["eps"]) for g in optimizer.param_groups} == {((0.9, 0.98), 1e-6)}


def test_unused_token_rows_are_decayed_as_if_they_had_been_trained(micro, fresh, tmp_path):
    encoder = fresh()
    run(encoder, tmp_path, settings=section(weight_decay=0.4, lr=5e-3))
    before, after = (one.module.token_embedding.weight.detach() for one in (micro, encoder))
    unused = torch.ones(len(before), dtype=torch.bool)
    unused[encoder.tokenize([text for own in CAPTIONS for text in own]).flatten()] = False
    assert unused.sum() > 49000
    product = math.prod(1 - entry["lr"] * 0.4 for entry in log_of(tmp_path))
    assert product < 0.995
    torch.testing.assert_close(after[unused], before[unused] * product, rtol=1e-6, atol=1e-9)


def test_logit_scale_stays_below_100(fresh, tmp_path):
    encoder = fresh()
    with torch.no_grad():
        encoder.module.logit_scale.fill_(math.log(150))  # a step of 1e-3 does not bring it down
    run(encoder, tmp_path)
    assert max(entry["logit_scale"] for entry in log_of(tmp_path)) <= 100.001


# ---- numerics


def test_resolve_precision(monkeypatch):
    for device in ("cpu", "cuda"):
        assert [resolve_precision(setting, device) for setting in ("fp32", "bf16")] == ["fp32", "bf16"]
    for there, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there, raising=False)
        assert resolve_precision("auto", "cpu") == expected
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda there=there: there)
        assert resolve_precision("auto", "cuda") == expected
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert resolve_precision("auto", "cpu") == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_computing(precision, dtype):
    x = torch.ones(2, 2)
    flash = torch.backends.cuda.flash_sdp_enabled()
    with computing(precision, "cpu", tokens=10):
        assert (x @ x).dtype == dtype
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert (x @ x).dtype == torch.float32
    assert torch.backends.cuda.flash_sdp_enabled() == flash
    with computing(precision, "cpu", tokens=1000):  # many tokens: the choice is torch's
        assert torch.backends.cuda.flash_sdp_enabled() == flash


def test_bf16_training_is_close_to_fp32(fresh, tmp_path):
    rows, losses = list(range(N)), {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        train(Towers(fresh(), precision), data_of(rows), plan_of(rows), section(), folder)
        losses[precision] = [entry["loss"] for entry in log_of(folder)]
        weights = openclip.load(folder).module.state_dict()
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_threads_come_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), threads(before + 2):
        raise KeyError
    assert torch.get_num_threads() == before
