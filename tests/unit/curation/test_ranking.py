"""The ranked list of suspects: scores against loops, planted truth, bad input."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.random import generator
from clipmem.curation import ranking
from clipmem.curation.ranking import Ranked, agreeing, curate
from clipmem.curation.share import Planted, plant, posterior
from clipmem.curation.suspects import Curation
from clipmem.functional import auroc
from clipmem.models.signals import Signals, Trajectory
from clipmem.scoring.evidence import Evidence
from clipmem.scoring.pair_scores import PAIR_SCORES, PairScore, usable
from clipmem.stats.agreement import softmax_agreement
from clipmem.stats.leave_one_out import leave_one_out_scores
from clipmem.stats.similarity import contrast

N, THINGS = 400, 20
NAMES = ("dog", "cat", "sun", "moon", "tree", "car", "boat", "ship", "fish", "bird")
NAMES += ("hat", "shoe", "cup", "star", "leaf", "rose", "key", "bell", "drum", "harp")


def drawings(seed=0, wrong=40, n=N):
    """Images of 20 things, each a pattern of its own under noise, captions that name them; some swapped."""
    stream = np.random.default_rng(seed)
    patterns = stream.integers(0, 256, (THINGS, 8, 8, 3))
    thing = np.arange(n) % THINGS
    pixels = patterns[thing].repeat(8, 1).repeat(8, 2) + stream.normal(0, 40, (n, 64, 64, 3))
    chosen = stream.permutation(n)[:wrong]
    named = thing.copy()
    named[chosen] = (thing[chosen] + 1 + stream.integers(THINGS - 1, size=wrong)) % THINGS
    captions = [[f"a {('small', 'big', 'old')[k % 3]} {NAMES[one]}"] for k, one in enumerate(named)]
    images = np.clip(pixels, 0, 255).astype(np.uint8)
    signals = Signals([f"p{k}" for k in range(n)], captions, np.arange(n), pixels=images.__getitem__)
    return signals, np.isin(np.arange(n), chosen)


@pytest.fixture(scope="module")
def data():
    return drawings()


@pytest.fixture(scope="module")
def found(data) -> Curation:
    return curate(data[0])


def with_model(signals, seed=0):
    stream = np.random.default_rng(seed)
    n = len(signals.uids)
    image, text = (torch.tensor(stream.normal(size=(n, 6)), dtype=torch.float32) for _ in range(2))
    trajectory = Trajectory(*stream.normal(0, 0.3, (2, 4, n)).astype(np.float32))
    columns = {name: stream.normal(size=n) for name in ("clipmem", "g_alignment")}
    return replace(signals, image=image, text=text, trajectory=trajectory, scores=columns)


# ---- formulas


@pytest.mark.parametrize(("n", "d", "seed"), [(2, 3, 0), (7, 4, 1), (13, 2, 2)])
def test_contrast_against_a_loop(n, d, seed):
    stream = np.random.default_rng(seed)
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in stream.normal(size=(2, n, d)))
    fast = contrast(torch.from_numpy(3 * u), torch.from_numpy(v))
    for i in range(n):
        others = [max(u[i] @ v[j], u[j] @ v[i]) for j in range(n) if j != i]
        crowd = math.log(sum(math.exp(u[i] @ v[j] / 0.05) for j in range(n)))
        crowd += math.log(sum(math.exp(u[j] @ v[i] / 0.05) for j in range(n)))
        assert float(fast.similarity[i]) == pytest.approx(u[i] @ v[i])
        assert float(fast.margin[i]) == pytest.approx(u[i] @ v[i] - max(others))
        assert float(fast.scaled[i]) == pytest.approx(u[i] @ v[i] - 0.025 * crowd)


def test_many_pairs_are_contrasted_in_random_batches(monkeypatch):
    u, v = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 23, 4)))
    batches = np.array_split(generator(0, "s-CLIPLoss").permutation(23), 3)
    expected = [contrast(u[batch], v[batch]) for batch in batches]
    monkeypatch.setattr("clipmem.stats.similarity.EXACT", 10)
    for values, *each in zip(contrast(u, v), *expected, strict=True):
        torch.testing.assert_close(values[np.concatenate(batches)], torch.cat(each))


def test_own_fit_is_what_the_functional_scores_say(data):
    signals = data[0]
    own, fold = signals.once(Evidence).fits, signals.once(Evidence).fold
    x, t = (torch.from_numpy(np.asarray(one, float)) for one in (signals.shapes_and_colors, signals.words[:]))
    assert own[0] == pytest.approx(softmax_agreement(x, t, group=fold).numpy(), abs=1e-5)
    assert own[1] == pytest.approx(softmax_agreement(t, x, group=fold).numpy(), abs=1e-5)
    for fit, one, other in ((own[2], x.numpy(), t.numpy()), (own[3], t.numpy(), x.numpy())):
        assert fit == pytest.approx(-leave_one_out_scores(one, other, group=fold, kernel="rbf"), abs=1e-5)


def test_scores_of_a_trajectory_and_a_model_against_loops(data):
    signals = with_model(data[0])
    margin = signals.trajectory.margin.copy()
    margin[1, 0] = np.nan
    margin[:, 1] = np.nan
    signals = replace(signals, trajectory=Trajectory(margin, margin))
    area, loss = PAIR_SCORES["margin"]().score(signals), PAIR_SCORES["loss"]().score(signals)
    for k in (0, 2, 5):
        known = [float(one) for one in margin[:, k] if not math.isnan(one)]
        assert area[k] == pytest.approx(-sum(known) / len(known))
        assert loss[k] == pytest.approx(sum(math.log(1 + math.exp(-one / 0.07)) for one in known) / len(known))
    assert np.isnan([area[1], loss[1]]).all()
    u, v = signals.image.numpy(), signals.text.numpy()
    cosine = u[4] @ v[4] / np.linalg.norm(u[4]) / np.linalg.norm(v[4])
    assert PAIR_SCORES["similarity"]().score(signals)[4] == pytest.approx(1 - cosine, abs=1e-6)
    assert PAIR_SCORES["low-alignment"]().score(signals) == pytest.approx(-signals.scores["g_alignment"])


def test_the_weight_of_a_model_against_a_loop():
    stream, n = np.random.default_rng(5), 60
    odds = stream.normal(size=n)

    def part(name, needs, score, kind="mismatched"):
        return Ranked(name, kind, 1.0, frozenset(needs), score, np.zeros(n, dtype=bool))

    members = [
        part("pixels", {"images"}, odds + stream.normal(size=n)),
        part("words", {"images"}, odds + stream.normal(size=n)),
        part("vague", {"images"}, stream.normal(size=n), "vague"),
        part("captions", set(), stream.normal(size=n)),
        part("half", {"embeddings"}, odds + 3 * stream.normal(size=n)),
        part("against", {"embeddings"}, -odds),
        part("same", {"trajectory"}, odds),
        part("constant", {"scores"}, np.zeros(n)),
    ]
    factors = {one.name: one.agreement for one in agreeing(members, part("odds", set(), odds))}
    usual = np.mean([spearmanr(members[k].score, odds).statistic for k in (0, 1)])
    half = spearmanr(members[4].score, odds).statistic / usual
    assert 0 < half < 1
    expected = {
        "pixels": 1,
        "words": 1,
        "vague": 1,
        "captions": 1,
        "half": half,
        "against": 0,
        "same": 1,
        "constant": 0,
    }
    assert factors == pytest.approx(expected)
    unlike = [part("pixels", {"images"}, -odds), part("model", {"embeddings"}, odds)]
    assert [one.agreement for one in agreeing(unlike, part("odds", set(), odds))] == [1, 1]


# ---- how many


def mixture(share, seed=0, n=4000):
    """Log odds of right captions, of planted ones and of observed ones; half of the wrong ones are hard to see."""
    stream = np.random.default_rng(seed)

    def wrong(k):
        return stream.normal(3, 1, k), stream.normal(1.5, 1, k)

    random, alike = wrong(2 * n)
    count = round(share * n)
    easy, hard = wrong(count)
    observed = np.concatenate([stream.normal(-3, 1, n - count), np.where(np.arange(count) % 2, easy, hard)])
    return Planted(observed, random, alike), np.arange(n) >= n - count


@pytest.mark.slow
def test_data_most_of_whose_captions_are_equal_are_no_error():
    signals = drawings(0, 0)[0]
    equal = np.random.default_rng(0).random(N) < 0.8
    captions = [["a thing"] if own else one for own, one in zip(equal, signals.captions, strict=True)]
    found = curate(replace(signals, captions=captions))
    assert found.table["is_suspect"].to_numpy()[equal].all()
    assert found.document["by_rule"] == equal.sum()


@pytest.mark.slow
def test_few_different_captions_are_known_as_such(data):
    signals = data[0]
    evidence = signals.once(Evidence)
    for different, few in ((2, True), (N // 5 - 1, True), (N // 5, False), (N, False)):
        assert bool(plant(evidence, np.arange(N) % different, 0, plantings=1).fits) is few


def test_probabilities_are_calibrated_and_rise_with_the_score():
    planted, wrong = mixture(0.2)
    chance = posterior(planted, 0.2, planted.observed, np.ones(len(wrong), bool))
    assert (np.diff(chance[np.argsort(planted.observed)]) >= 0).all()
    assert chance.mean() == pytest.approx(0.2, abs=0.02)
    for part in (chance < 0.5, chance >= 0.5):
        assert wrong[part].mean() == pytest.approx(chance[part].mean(), abs=0.05)


# ---- the list


def test_wrong_captions_come_first_and_are_counted(data, found):
    _, wrong = data
    table = found.table
    assert auroc(table["score"].to_numpy(), wrong).mean > 0.97
    suspect = table["is_suspect"].to_numpy()
    assert wrong[np.argsort(-table["score"].to_numpy())[: wrong.sum()]].mean() > 0.95
    assert wrong[suspect].mean() > 0.9
    assert suspect[wrong].mean() > 0.2
    low, high = found.document["expected"]["pairs"][1:]
    assert found.document["expected"]["found"]
    assert low < wrong.sum() < high


def test_table_has_a_row_per_pair_and_says_why(data, found):
    signals, table = data[0], found.table
    assert table["uid"].to_list() == signals.uids
    assert table["score"].is_between(0, 1).all()
    assert table["probability"].is_between(0, 1).all()
    suspects = table.filter("is_suspect")
    assert suspects["kind"].unique().to_list() == ["mismatched"]
    assert set(suspects["reason"]) | set(suspects["second_reason"]) <= set(usable("mismatched captions", signals))
    assert (suspects["reason"] != suspects["second_reason"]).all()
    assert set(suspects["neighbors"].explode()) <= set(signals.uids)
    # of others, too: somebody may ask for more suspects
    assert table["reason"].null_count() == 0
    for name in found.document["detectors"]:
        assert f"{name.replace('-', '_')}_score" in table.columns


def test_only_the_first_of_many_pairs_and_suspects_have_reasons(data, found, monkeypatch):
    monkeypatch.setattr(ranking, "LISTED", 3)
    table = curate(data[0]).table
    said = ("kind", "reason", "second_reason", "suggested_caption", "neighbors")
    suspect = found.table["is_suspect"]
    assert table.filter(suspect).equals(found.table.filter(suspect))
    others = table.filter(~suspect)
    assert others.drop(said).equals(found.table.filter(~suspect).drop(said))
    assert others.select(pl.col(said[:4]).is_null().all()).row(0) == (True,) * 4
    assert (others["neighbors"].list.len() == 0).all()


def test_suggested_captions_name_what_is_drawn(data, found):
    table = found.table.with_row_index("k").filter(pl.col("suggested_caption").is_not_null())
    assert len(table) > 5
    right = [NAMES[k % THINGS] in text for k, text in zip(table["k"], table["suggested_caption"], strict=True)]
    assert np.mean(right) > 0.9


@pytest.mark.slow
def test_nothing_is_suggested_where_right_is_not_told_from_wrong():
    signals, _ = drawings(seed=1)
    stream = np.random.default_rng(0)
    noise = stream.integers(0, 256, (N, 64, 64, 3)).astype(np.uint8)
    words = [[" ".join(stream.choice(NAMES, 3))] for _ in range(N)]
    blind = curate(replace(signals, captions=words, pixels=noise.__getitem__))
    assert not blind.document["expected"]["clear"]
    assert blind.table["suggested_caption"].is_null().all()
    assert blind.table.schema["suggested_caption"] == pl.String


@pytest.mark.slow
def test_equal_input_gives_equal_lists(data, found):
    again = curate(replace(data[0]))
    assert again.table.equals(found.table)


@pytest.mark.slow
def test_ranks_alone_put_wrong_captions_first(data):
    table = curate(data[0], combine="ranks").table
    assert auroc(table["score"].to_numpy(), data[1]).mean > 0.97


@pytest.mark.slow
def test_file_names_and_vague_captions_are_named(data):
    signals, wrong = data
    captions = [list(one) for one in signals.captions]
    names = np.flatnonzero(~wrong)[:4]
    for k, text in zip(
        names, ("IMG_2041.jpg", "https://a.example/x", "all rights reserved", "Screenshot 2026-11-27"), strict=True
    ):
        captions[k] = [text]
    vague = np.flatnonzero(~wrong)[10:60]
    for k in vague:
        captions[k] = ["stuff"]
    found = curate(replace(signals, captions=captions))
    table = found.table
    assert found.document["by_rule"] == 54
    for rows, kind in ((names, "hygiene"), (vague, "vague")):
        named = table[rows.tolist()]
        assert named["is_suspect"].all()
        assert (named["probability"] == 1).all()
        assert set(named["kind"]) == {kind}
        assert set(named["reason"]) == {kind}
    assert np.isin(np.argsort(-table["score"].to_numpy())[:50], vague).mean() > 0.6
    scores = table["vague_score"].to_numpy()
    assert scores[vague].min() > np.delete(scores, vague).max()


def test_the_rule_for_vague_captions_against_a_loop(data):
    signals, _ = data
    captions, thing = [[f"{own[0]} {k}"] for k, own in enumerate(signals.captions)], np.arange(N) % THINGS
    often = {"pattern": np.flatnonzero(thing == 3).tolist(), "stuff": list(range(100, 130)), "few": list(range(9))}
    for text, rows in often.items():
        for k in rows:
            captions[k] = [text]
    signals = replace(signals, captions=captions)
    score, rule = PAIR_SCORES["vague"]().score(signals), PAIR_SCORES["vague"]().certain(signals, np.zeros(N))
    image, texts = signals.once(Evidence).image.astype(np.float64), [one[0] for one in captions]
    times = {text: texts.count(text) for text in texts}
    usual = max(2.0, float(np.quantile(list(times.values()), 0.98)))
    for k, text in enumerate(texts):
        rows = [j for j in range(N) if texts[j] == text]
        m = len(rows)
        cosines = [image[i] @ image[j] for i in rows for j in rows if i != j]
        alike = np.mean(cosines) if m > 1.5 * usual else 0.0
        expected = math.log(m / usual) * min(1, max(0, 1 - alike)) if m > 1.5 * usual else 0.0
        assert score[k] == pytest.approx(expected, abs=1e-5)
        assert rule[k] == (m >= 10 and m >= 0.005 * N and m >= 3 * usual and alike < 0.2)
    assert rule.sum() == 30  # neither a few pairs, nor many of the same thing


def test_right_captions_with_numbers_marks_or_another_script_are_not_flagged(data):
    signals, _ = data
    captions = [list(one) for one in signals.captions]
    texts = ("Photo 12 of 20: the kitchen", "image 10 shows a wall", "Stock photo of a dog", "copyright", "собака")
    captions[:5] = [[text] for text in texts]
    score = PAIR_SCORES["hygiene"]().score(replace(signals, captions=captions))
    assert score[:5].tolist() == [0, 0, 0.5, 0, 0.5]
    captions[0] = ["dogs, copyright 2020 by somebody"]
    assert PAIR_SCORES["hygiene"]().score(replace(signals, captions=captions))[0] == 1
    assert not PAIR_SCORES["hygiene"]().certain(signals, score).any()


def test_the_most_frequent_of_a_few_names_of_classes_is_not_vague(data):
    signals, _ = data
    names = np.repeat(["star", "circle", "key", "moon"], [N // 4 + 6, N // 4, N // 4, N - 3 * (N // 4) - 6])
    assert not PAIR_SCORES["vague"]().score(replace(signals, captions=[[str(name)] for name in names])).any()


def test_a_probability_of_1_is_that_of_a_rule(data, monkeypatch):
    """With few different captions the fitted curve reaches 1; that is no rule."""
    signals, wrong = data
    monkeypatch.setattr(ranking, "posterior", lambda *given: np.where(wrong, 1.0, posterior(*given)))
    captions = [["IMG_2041.jpg"], *signals.captions[1:]]
    found = curate(replace(signals, captions=captions))
    assert found.document["by_rule"] == 1
    assert found.table["probability"][0] == 1
    assert 0.999 < found.table.filter(pl.Series(wrong))["probability"].min() < 1


def test_the_odd_one_of_one_image_ranks_first(data):
    captions = [["a red dog"], ["a red dog"], ["the moon"], ["a key"]]
    signals = Signals(list("abcd"), captions, np.array([3, 3, 3, 1]))
    assert PAIR_SCORES["duplicates"]().score(signals).tolist() == [0.5, 0.5, 1.0, 0.0]


@pytest.mark.slow
def test_a_model_adds_its_detectors_and_every_one_can_be_asked_for(data):
    signals = with_model(data[0])
    names = usable("mismatched captions", signals)
    assert len(names) == sum("mismatched captions" in PAIR_SCORES[name].good_for for name in PAIR_SCORES)
    table = curate(signals, detectors=names, plantings=1).table
    for name in names:
        assert table[f"{name.replace('-', '_')}_score"].len() == N
    assert {"margin", "similarity"} <= set(curate(signals, plantings=1).document["combination"])


def test_features_of_a_pretrained_model_stand_in_for_pixels(data):
    signals, wrong = data
    stream = np.random.default_rng(1)
    image = torch.tensor(stream.normal(size=(THINGS, 16))[np.arange(N) % THINGS] + stream.normal(0, 0.3, (N, 16)))
    table = curate(replace(signals, image=image, pixels=None)).table
    assert auroc(table["score"].to_numpy(), wrong).mean > 0.97


@pytest.mark.slow
def test_a_model_that_never_saw_the_pairs_is_evidence_and_one_that_trained_on_them_is_not():
    """Pixels are noise. Embeddings know the thing, or, of a model that trained on the pairs, what the caption names."""
    known, wrong = drawings()
    stream = np.random.default_rng(2)
    noise = stream.integers(0, 256, (N, 64, 64, 3), dtype=np.uint8)
    thing, named = np.arange(N) % THINGS, np.array([NAMES.index(own[0].split()[-1]) for own in known.captions])
    means = stream.normal(size=(2, THINGS, 16))

    def embedded(image, pixels):
        both = (means[0][image], means[1][named])
        image, text = (torch.tensor(x + stream.normal(0, 0.3, x.shape), dtype=torch.float32) for x in both)
        return replace(known, pixels=pixels, image=image, text=text)

    def area(signals):
        found = curate(signals)
        return found.document["evidence"], auroc(found.table["score"].to_numpy(), wrong).mean

    knows = embedded(thing, noise.__getitem__)
    assert area(knows)[0] == "pixels"
    name, seen = area(replace(knows, unseen=True))
    assert name == "embeddings"
    assert seen > 0.95
    assert seen > area(knows)[1] + 0.1
    memorized = embedded(named, known.pixels)
    assert list(memorized.evidence) == ["pixels"]
    assert area(memorized)[0] == "pixels"
    assert area(memorized)[1] > area(replace(memorized, pixels=None))[1] + 0.1
    # embeddings that know less than pixels do not replace them
    weak = with_model(known)
    name, ignored = area(replace(weak, unseen=True))
    assert name == "pixels"
    assert ignored == pytest.approx(area(weak)[1], abs=0.01)


@pytest.mark.slow
def test_a_model_counts_as_far_as_it_agrees_with_the_other_pairs(data):
    """Embeddings that say nothing lose their weight, those that know the thing keep it; without a model all keep it."""
    signals, wrong = data
    stream = np.random.default_rng(3)
    thing, named = np.arange(N) % THINGS, np.array([NAMES.index(own[0].split()[-1]) for own in signals.captions])
    means = stream.normal(size=(THINGS, 16))
    image, text = (torch.tensor(means[k] + stream.normal(0, 1, (N, 16)), dtype=torch.float32) for k in (thing, named))
    by_model = "similarity", "embedded-neighbors"
    declared = {name: PAIR_SCORES[name].weight for name in PAIR_SCORES}

    def combination(unseen=True, **model):
        known = replace(signals, unseen=unseen, **model)
        return curate(known)

    weights = combination(image=image, text=text).document["combination"]
    assert all(weights[name] > 0.6 for name in by_model)
    assert all(weight == declared[name] for name, weight in weights.items() if name not in (*by_model, "planted-odds"))
    noise = {name: torch.tensor(stream.normal(size=(N, 16)), dtype=torch.float32) for name in ("image", "text")}
    for unseen in (False, True):
        found = combination(unseen, **noise)
        assert all(found.document["combination"][name] < 0.3 for name in by_model)
        assert not set(by_model) & set(found.table.filter(found.table["is_suspect"])["reason"])
        assert auroc(found.table["score"].to_numpy(), wrong).mean > 0.98


@pytest.mark.slow
def test_a_detector_of_another_package_joins_the_combination(data, found, monkeypatch):
    class Odd(PairScore):
        """Every second pair."""

        name, weight = "odd", 5.0

        def score(self, signals):
            return np.arange(len(signals.uids)) % 2.0

    monkeypatch.setitem(PAIR_SCORES._items, "odd", Odd)
    again = curate(data[0], plantings=1)
    assert again.document["combination"]["odd"] == 5.0
    assert auroc(again.table["score"].to_numpy(), np.arange(N) % 2 == 1).mean > 0.9


def test_every_score_for_mismatched_captions_has_words():
    words = tomllib.loads((Path(clipmem.__file__).parent / "report/templates/reasons.toml").read_text())
    assert set(words) == {name for name in PAIR_SCORES if "mismatched captions" in PAIR_SCORES[name].good_for}
    assert all(PAIR_SCORES[name].summary for name in PAIR_SCORES)


# ---- bad input


def parts(error):
    return error.value.what, error.value.got


@pytest.mark.parametrize(
    ("change", "options", "what", "got"),
    [
        ({"pixels": None}, {}, "curate", "no images and no model"),
        ({}, {"confidence": 1.0}, "confidence", "1.0"),
        ({}, {"plantings": 0}, "plantings", "0"),
        ({}, {"combine": "votes"}, "combine", "'votes'"),
        ({}, {"detectors": ["margin"]}, "pair score margin", "no trajectory"),
        ({}, {"detectors": ["low-alignment"]}, "pair score low-alignment", "no scores"),
        ({}, {"detectors": ["marginn"]}, "pair score 'marginn'", "an unknown name"),
        ({"captions": [["one"]] * N}, {}, "captions", f"the same words in all {N} pairs"),
    ],
)
def test_bad_input(data, change, options, what, got):
    with pytest.raises(InputError) as error:
        curate(replace(data[0], **change), **options)
    assert parts(error) == (what, got)


def test_a_few_pairs_are_refused():
    with pytest.raises(InputError) as error:
        curate(drawings(n=40, wrong=4)[0])
    assert parts(error) == ("pairs", "40")
