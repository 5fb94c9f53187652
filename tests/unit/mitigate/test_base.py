"""Every mitigation by itself: masking, captions, controls, regrouping, removal, and that each leaves f and g paired."""

import json
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.mitigations import (
    EarlyStoppingSection,
    RegroupSection,
    RemoveSection,
    TextMaskingSection,
    WeightDecaySection,
)
from clipmem.base.random import derive_seed, uniform
from clipmem.base.recipes import differences, dump_recipe, load_recipe
from clipmem.data.views import pair_keys
from clipmem.mitigate import MITIGATIONS, CaptionSampling, Training, hooks_of, removal_list, sample_captions
from clipmem.mitigate.base import captions_in_training
from clipmem.mitigate.controls import EarlyStopping, WeightDecay
from clipmem.mitigate.masking import TextMasking, drop_tokens
from clipmem.mitigate.parent import Parent
from clipmem.mitigate.regroup import Regroup, regroup
from clipmem.mitigate.remove import take_out
from clipmem.models import openclip
from clipmem.train.hooks import Hooks, Moment
from clipmem.train.loop import train
from clipmem.train.paired import training_set
from clipmem.train.schedule import epoch_batches
from tests.unit.train.test_loop import N, data_of, plan_of, section, uid

KEYS = pair_keys([uid(k) for k in range(300)])


def fit(folder, *hooks, **changes):
    train(
        openclip.create("clipmem-micro", seed=7),
        data_of(range(N)),
        plan_of(range(N)),
        section(**changes),
        folder=folder,
        precision="fp32",
        hooks=Hooks(hooks),
    )
    record = json.loads((folder / "record.json").read_text())
    return record, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_section_has_a_mitigation_that_says_what_it_is():
    assert set(MITIGATIONS) == set(type(load_recipe("").mitigate).model_fields)
    assert all(MITIGATIONS[name].name == name and MITIGATIONS[name].summary for name in MITIGATIONS)


# ---- text masking


def slow_drop(row, key, probability, seed, step):
    drawn = uniform(np.array([key]), derive_seed(seed, "text mask", step), len(row))[0]
    end = max((place for place, token in enumerate(row) if token), default=0)
    words = list(range(1, end))
    stay = [place for place in words if drawn[place] >= probability]
    if words and not stay:
        stay = [max(words, key=lambda place: drawn[place])]
    kept = [row[0], *(row[place] for place in stay), *([row[end]] if end else [])]
    return kept + [0] * (len(row) - len(kept))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.95])
def test_masking_against_the_slow_loop(probability):
    rng = np.random.default_rng(0)
    tokens = np.zeros((300, 12), dtype=np.int64)
    for row in tokens:
        length = rng.integers(0, 10)
        row[0], row[1 : 1 + length], row[1 + length] = 90, rng.integers(0, 80, length), 91  # 0 may be a word
    found = drop_tokens(torch.from_numpy(tokens), KEYS, probability=probability, seed=3, step=5)
    for row, key, got in zip(tokens.tolist(), KEYS, found.tolist(), strict=True):
        assert got == slow_drop(row, key, probability, 3, 5)


def test_masking_frequency_streams_and_zero():
    tokens = torch.tensor([[90, *range(1, 41), 91]]).repeat(300, 1)
    p, kept = 0.3, Counter()
    for step in range(20):
        found = drop_tokens(tokens, KEYS, probability=p, seed=1, step=step)
        kept.update(token for row in found.tolist() for token in row if 0 < token < 90)
    spread = math.sqrt(6000 * p * (1 - p))
    assert all(abs(kept[token] - 6000 * (1 - p)) < 5 * spread for token in range(1, 41))
    once = drop_tokens(tokens, KEYS, probability=p, seed=1, step=0)
    assert torch.equal(once[7:9], drop_tokens(tokens[7:9], KEYS[7:9], probability=p, seed=1, step=0))
    assert not torch.equal(once, drop_tokens(tokens, KEYS, probability=p, seed=1, step=1))
    assert not torch.equal(once, drop_tokens(tokens, KEYS, probability=p, seed=2, step=0))
    assert drop_tokens(tokens, KEYS, probability=0.0, seed=1, step=0) is tokens
    with pytest.raises(InputError) as caught:
        drop_tokens(tokens, KEYS, probability=1.0, seed=1, step=0)
    assert (caught.value.what, caught.value.got) == ("probability", "1.0")


def test_masking_refuses_what_it_cannot_read():
    """Tokens as of SigLIP (no start token, padding 1), as of RoBERTa (padding 1) and as of a masking tokenizer."""
    hook = TextMasking(TextMaskingSection(probability=0.5))
    moment = Moment(0, 0, 0, np.arange(3), KEYS[:3])
    fit = torch.tensor([[90, 5, 6, 91, 0], [90, 5, 91, 0, 0], [90, 5, 91, 91, 91]])
    assert hook.tokens(fit, moment).shape == fit.shape
    for other in (
        [[5, 6, 7, 1, 1], [6, 7, 1, 1, 1], [7, 1, 1, 1, 1]],
        [[0, 6, 2, 1, 1], [0, 7, 2, 1, 1], [0, 7, 7, 7, 2]],
        [[90, 5, 91, -1, -1], [90, 5, 91, -1, -1], [90, 5, 91, -1, -1]],
    ):
        with pytest.raises(InputError) as caught:
            hook.tokens(torch.tensor(other), moment)
        assert caught.value.what == "[mitigate.text_masking]"


# ---- captions


def test_caption_sampling_shows_each_caption_equally_often():
    pairs = [(f"image {k}", [f"{k} {c}" for c in range(5)]) for k in range(100)]
    data, seen = CaptionSampling(pairs, seed=4, keys=KEYS[:100]), Counter()
    for epoch in range(60):
        data.set_epoch(epoch)
        items = [data[k] for k in range(len(data))]
        assert [image for image, _ in items] == [image for image, _ in pairs]
        assert [c for _, c in items] == sample_captions([c for _, c in pairs], KEYS[:100], epoch=epoch, seed=4)
        seen.update(caption.split()[1] for _, caption in items)
    assert sum(seen.values()) == 6000
    assert all(abs(count - 1200) < 5 * math.sqrt(6000 * 0.2 * 0.8) for count in seen.values())


def test_caption_sampling_is_what_the_loop_draws():
    captions = [[f"{k} {c}" for c in range(k % 4 + 1)] for k in range(50)]
    for k, chosen in enumerate(sample_captions(captions, KEYS[:50], epoch=2, seed=9)):
        u = uniform(KEYS[k : k + 1], derive_seed(9, "caption", 2), 1)[0, 0]
        assert chosen == captions[k][int(u * len(captions[k]))]


def test_a_pair_without_captions_is_refused():
    with pytest.raises(InputError) as caught:
        sample_captions([["a"], []], KEYS[:2], epoch=0)
    assert str(caught.value) == "captions of pair 1: got none, expected one or more. Leave the pair out."


def test_captions_in_training_and_in_scores_are_two_settings():
    assert captions_in_training(load_recipe("[train]\ncaptions = 3")) == 3
    assert captions_in_training(load_recipe("[train]\ncaptions = 3\n[mitigate.captions]\ncount = 5")) == 5


# ---- controls


def test_weight_decay_is_multiplied(tmp_path):
    record, _ = fit(tmp_path / "a", WeightDecay(WeightDecaySection(factor=3.0)))
    same, _ = fit(tmp_path / "b", weight_decay=0.2 * 3.0)
    assert record["final_sha256"] == same["final_sha256"]
    assert record["mitigate"] == {"weight_decay": {"factor": 3.0}}
    one, _ = fit(tmp_path / "c", WeightDecay(WeightDecaySection(factor=1.0)))
    plain, _ = fit(tmp_path / "d")
    assert one["final_sha256"] == plain["final_sha256"] != record["final_sha256"]


@pytest.mark.parametrize(("share", "steps"), [(0.5, 3), (0.01, 1), (0.9, 5), (1.0, 6)])
def test_early_stopping_is_the_beginning_of_the_whole_training(tmp_path, share, steps):
    whole, log = fit(tmp_path / "whole")
    record, begun = fit(tmp_path / "short", EarlyStopping(EarlyStoppingSection(share=share)))
    assert begun == log[:steps]
    assert record["steps"] == steps
    sizes = [len(batch) for epoch in range(2) for batch in epoch_batches(N, 8, seed=0, epoch=epoch)]
    assert record["presentations"] == sum(sizes[:steps])
    assert whole["presentations"] == 2 * N
    assert (record["final_sha256"] == whole["final_sha256"]) == (share == 1)


# ---- regrouping


def slow_regroup(batches, removal_score, share, places):
    """Take slots one by one, the worst first into the batches of `places`."""
    order = [slot for batch in batches for slot in batch]
    room = sum(len(batches[place]) for place in places)
    worst = set(sorted(order, key=lambda slot: (-removal_score[slot], order.index(slot)))[:room])
    laid, own, others = [], [s for s in order if s in worst], [s for s in order if s not in worst]
    for place, batch in enumerate(batches):
        queue = own if place in places else others
        laid.append([queue.pop(0) for _ in batch])
    return laid


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("n", [20, 53])
def test_regroup_against_the_slow_loop(n, share):
    removal_score = np.round(np.random.default_rng(n).normal(size=n), 1)  # with ties
    for epoch in range(4):
        batches = epoch_batches(n, 8, seed=1, epoch=epoch)
        laid = regroup(batches, removal_score, share=share, seed=1, epoch=epoch)
        assert [len(batch) for batch in laid] == [len(batch) for batch in batches]
        assert sorted(np.concatenate(laid)) == list(range(n))
        count = len(batches)
        own = min(count - 1, max(1, round(share * count)))
        means = [removal_score[batch].min() for batch in laid]
        places = set(np.argsort(means, kind="stable")[::-1][:own].tolist())
        assert [batch.tolist() for batch in laid] == slow_regroup(batches, removal_score, share, places)


def test_regroup_places_differ_between_epochs_and_unknown_pairs_come_last():
    removal_score = np.array([np.nan, *range(39)], dtype=float)
    batches, seen = [np.arange(k, 40, 5) for k in range(5)], set()
    for epoch in range(30):
        laid = regroup(batches, removal_score, share=0.2, seed=0, epoch=epoch)
        [place] = [k for k, batch in enumerate(laid) if set(batch) == set(range(32, 40))]
        seen.add(place)
        assert 0 not in laid[place]
    assert seen == set(range(5))


def test_regroup_needs_two_batches():
    with pytest.raises(InputError) as caught:
        regroup([np.arange(4)], np.zeros(4), share=0.5, seed=0, epoch=0)
    assert str(caught.value) == (
        "[mitigate.regroup] share: got one batch an epoch, expected two or more. "
        "Set train.batch_size to less than half of the training pairs."
    )


def test_regroup_hook_acts_every_so_many_epochs(tmp_path):
    hook = Regroup(RegroupSection(share=0.4, every=2, scores="x"), 0, np.arange(N, dtype=float))
    for epoch in range(4):
        batches = epoch_batches(N, 8, seed=0, epoch=epoch)
        changed = [a.tolist() for a in hook.batches(batches, epoch)] != [b.tolist() for b in batches]
        assert changed == (epoch % 2 == 0)
    record, _ = fit(tmp_path, hook)
    assert record["presentations"] == 2 * N


# ---- removal


def table(shared=6, candidate=4, independent=4, external=3):
    roles = [
        role
        for role, n in zip(
            ("shared", "candidate", "independent", "external"), (shared, candidate, independent, external), strict=True
        )
        for _ in range(n)
    ]
    uids = [uid(k) for k in range(len(roles))]
    return pl.DataFrame({"uid": uids, "role": roles}).sort("uid").with_columns(planted=pl.lit(value=False))


def parent_of(splits, values):
    return Parent("x", pl.DataFrame({"uid": splits["uid"], "removal_score": values}), {})


def test_the_worst_go_and_candidates_take_their_slots_independent_pair_along():
    splits = table()
    rng = np.random.default_rng(1)
    parent = parent_of(splits, rng.permutation(splits.height).astype(float))
    kept, removed = take_out(splits, RemoveSection(count=3, scores="x"), parent)
    mine = splits.filter(pl.col("role").is_in(["shared", "candidate"])).join(parent.table, on="uid")
    expected = mine.sort("removal_score", descending=True)["uid"].to_list()[:3]
    own = removed.filter(pl.col("rank").is_not_null())
    assert own["uid"].to_list() == expected
    assert own["rank"].to_list() == [1, 2, 3]
    of_role = {
        role: splits.filter(pl.col("role") == role)["uid"].sort().to_list() for role in ("candidate", "independent")
    }
    gone = [one for one in expected if one in of_role["candidate"]]
    mirrors = removed.filter(pl.col("rank").is_null())
    assert mirrors["went_with"].to_list() == gone
    assert mirrors["uid"].to_list() == [of_role["independent"][of_role["candidate"].index(one)] for one in gone]
    assert set(kept["uid"]) == set(splits["uid"]) - set(removed["uid"])
    assert (kept["role"] == "candidate").sum() == (kept["role"] == "independent").sum()
    assert (kept["role"] == "external").sum() == 3


@pytest.mark.parametrize("by", ["random", "planted", "clipmem"])
def test_removal_from_candidates_only(by):
    splits = table(candidate=30, independent=30).with_columns(
        planted=(pl.col("role") != "external") & pl.col("uid").hash(7).mod(4).eq(0)
    )
    parent = parent_of(splits, np.arange(splits.height).astype(float)) if by == "clipmem" else None
    section = RemoveSection(count=6, by=by, role="candidate", scores="x" if parent else "")
    _, removed = take_out(splits, section, parent)
    own = removed.filter(pl.col("rank").is_not_null())
    assert own["role"].to_list() == ["candidate"] * 6
    wrong = splits.filter((pl.col("role") == "candidate") & pl.col("planted"))["uid"].to_list()
    assert len(wrong) >= 3
    if by == "planted":  # the known wrong ones first, then others
        first = set(own.sort("rank")["uid"][: len(wrong)])
        assert first == set(wrong) if len(wrong) <= 6 else first <= set(wrong)
    assert removed.filter(pl.col("role") == "independent").height == 6


def test_random_removal_is_uniform_and_seeded():
    splits, times = table(), Counter()
    for seed in range(600):
        _, removed = take_out(splits, RemoveSection(count=2, by="random", seed=seed), None)
        times.update(removed.filter(pl.col("rank").is_not_null())["uid"])
    assert len(times) == 10
    assert all(abs(count - 120) < 5 * math.sqrt(600 * 0.2 * 0.8) for count in times.values())
    again = [take_out(splits, RemoveSection(count=2, by="random", seed=5), None)[1] for _ in range(2)]
    assert again[0].equals(again[1])


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (
            11,
            "[mitigate.remove] count: got 11 of 10 pairs that f trains on and that have a score, expected 1 to 10. "
            "Remove fewer, or score more pairs.",
        ),
        (
            9,
            "[mitigate.remove] count: got 9, which leaves 0 candidate pairs, expected at least 2 of each role to stay. "
            "Remove fewer.",
        ),
    ],
)
def test_too_many_removed(count, message):
    splits = table()
    worst = splits["role"].replace_strict({"candidate": 3.0, "shared": 2.0}, default=0.0)
    with pytest.raises(InputError) as caught:
        take_out(splits, RemoveSection(count=count, scores="x"), parent_of(splits, worst))
    assert str(caught.value) == message


def scores(tmp_path, **columns):
    rows = {
        "uid": ["a", "b", "c", "d", "e"],
        "role": ["shared", "candidate", "candidate", "independent", "external"],
        "clipmem": [0.1, 0.9, 0.5, 2.0, None],
        "f_positive": [0.2, 0.8, 0.3, 0.0, 0.1],
        "g_positive": [0.9, 0.1, 0.5, 0.3, 0.2],
        "g_image_bank": [0.0, 0.0, 0.3, 0.0, 0.0],
        "g_text_bank": [0.0, 0.0, 0.3, 0.0, 0.0],
        **columns,
    }
    file = tmp_path / "scores.parquet"
    pl.DataFrame(rows).write_parquet(file)
    return file


@pytest.mark.parametrize(
    ("by", "expected"),
    [("clipmem", ["b", "c", "a"]), ("similarity", ["a", "c", "b"]), ("g-alignment", ["c", "b", "a"])],
)
def test_removal_list_of_a_run(tmp_path, by, expected):
    file = scores(tmp_path)
    assert removal_list(file, 3, by=by) == expected
    assert removal_list(file, 1, by=by) == expected[:1]


def test_removal_list_of_a_table_of_ones_own(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("uid,score\n07,1.5\n08,NaN\n09,10\n")
    assert removal_list(file, 2, by="file") == ["09", "07"]


@pytest.mark.parametrize(
    ("content", "by", "got"),
    [
        ("uid,role\na,shared\n", "clipmem", "the columns uid, role"),
        ("uid,score\na,\n", "file", "no value of ['score']"),
        ("uid,score\na,1\na,2\n", "file", "uid 'a' more than once"),
        (None, "file", "no such file"),
    ],
)
def test_unusable_scores_are_explained(tmp_path, content, by, got):
    file = tmp_path / "scores.csv"
    if content:
        file.write_text(content)
    with pytest.raises(InputError) as caught:
        removal_list(file, 1, by=by)
    assert (caught.value.what, caught.value.got) == (f"removal_list scores, {file}", got)


def test_masking_in_the_loop_is_the_function(tmp_path):
    masked, _ = fit(tmp_path / "a", TextMasking(TextMaskingSection(probability=0.5)))
    plain, _ = fit(tmp_path / "b")
    assert masked["final_sha256"] != plain["final_sha256"]
    assert masked["mitigate"] == {"text_masking": {"probability": 0.5}}


# ---- sections


def test_nested_sections_survive_toml_and_are_told_apart():
    settings = [
        "mitigate.text_noise.std=0.15",
        "mitigate.text_noise.place=post-scaled",
        "mitigate.text_noise.start=0.5",
        "mitigate.caption_variants.kinds=['dropout', 'templates']",
        "mitigate.caption_variants.templates=['a {} \"b\"']",
        "mitigate.image_variants.crop_scale=[0.2, 0.9]",
        "mitigate.remove.count=5",
        "mitigate.remove.by=random",
    ]
    recipe = load_recipe("", settings)
    assert list(recipe.mitigate.active()) == ["text_noise", "caption_variants", "remove"]
    for comments in (False, True):
        assert load_recipe(dump_recipe(recipe, comments=comments)) == recipe
    changed = {key: now for key, _, now in differences(load_recipe(""), recipe)}
    assert changed == {
        "mitigate.text_noise.std": 0.15,
        "mitigate.text_noise.place": "post-scaled",
        "mitigate.text_noise.start": 0.5,
        "mitigate.caption_variants.kinds": ["dropout", "templates"],
        "mitigate.caption_variants.templates": ['a {} "b"'],
        "mitigate.image_variants.crop_scale": [0.2, 0.9],
        "mitigate.remove.count": 5,
        "mitigate.remove.by": "random",
    }
    assert "\n[mitigate.text_noise]\nstd = 0.15  " in dump_recipe(recipe, comments=True)


def test_nothing_is_on_by_default():
    assert not list(load_recipe("").mitigate.active())


@pytest.mark.parametrize("name", ["text_noise.std=0.1", "remove.count=3", "weight_decay.factor=2.0"])
def test_given_models_cannot_be_mitigated(name):
    settings = ["protocol=given", "given.target=['a']", "given.reference=['b']", f"mitigate.{name}"]
    if name.startswith("remove"):
        settings.append("mitigate.remove.by=random")
    with pytest.raises(InputError) as caught:
        load_recipe("", settings)
    assert str(caught.value) == (
        f"recipe: [mitigate.{name.split('.')[0]}] is set and protocol = 'given' trains nothing; omit it."
    )


def test_f_and_g_group_the_same_slots(tmp_path):
    splits = table(shared=10, candidate=4, independent=4, external=2)
    recipe = load_recipe("", ["mitigate.regroup.share=0.4", "mitigate.regroup.scores=x"])
    folder = RunFolder(tmp_path)
    uids = splits["uid"].to_list()
    folder.write("mitigate/regroup", pl.DataFrame({"uid": uids, "removal_score": [float(k) for k in range(len(uids))]}))
    plans = [training_set(splits, side, 1) for side in ("f", "g")]
    f, g = (hooks_of(Training(recipe, plan, folder, splits)) for plan in plans)
    for epoch in range(4):
        batches = plans[0].batches(5, epoch)
        laid = [[batch.tolist() for batch in hooks.batches(batches, epoch)] for hooks in (f, g)]
        assert laid[0] == laid[1] != [batch.tolist() for batch in batches]
    assert f.facts() == g.facts() == {"regroup": {"share": 0.4, "every": 1, "scores": "x"}}
