"""The tower swap: loops, exact sums, planted towers (text or image alone), and when it must call itself unreliable."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.base.tables import SCHEMAS
from clipmem.data.views import as_float, normalize_pixels
from clipmem.measure import towers
from clipmem.measure.localize import localize, sample_pairs, work
from clipmem.models import openclip, passes
from clipmem.models.passes import Embeddings
from tests.tiny import tiny_recipe
from tests.unit.measure.test_units import SQUARE, points

D = 12
SIZES = {"shared": 80, "candidate": 30, "independent": 30, "external": 40}
ROLES = [role for role, size in SIZES.items() for _ in range(size)]
N = len(ROLES)
NAMES = np.array(ROLES)
SEEN = {"f": np.isin(NAMES, ["shared", "candidate"]), "g": np.isin(NAMES, ["shared", "independent"])}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def world(memorizes, *, turn=True, noise=0.02, seed=0):
    """Embeddings of f and g: a pair's true image and caption are apart; the tower in `memorizes` moves to the other.

    A model's space is turned by a rotation of its own, as two trainings would leave it.
    """
    rng = np.random.default_rng(seed)
    image = unit(rng.standard_normal((N, D)))
    text = unit(image + 1.5 * unit(rng.standard_normal((N, D))))
    made = {}
    for side, seen in SEEN.items():
        own = {"image": image.copy(), "text": text.copy()}
        for tower in memorizes:
            other = text if tower == "image" else image
            own[tower][seen] = unit(own[tower][seen] + 1.5 * other[seen])
        rotation = np.linalg.qr(rng.standard_normal((D, D)))[0] if turn and side == "g" else np.eye(D)
        parts = [unit(unit(own[t] + noise * rng.standard_normal((N, D))) @ rotation) for t in ("image", "text")]
        made[side] = towers.Means(*(torch.from_numpy(part) for part in parts))
    return made


def split(made, weight=1.0):
    return towers.swap({0: made["f"]}, {0: made["g"]}, ROLES, weight=weight)


def mean(values, role):
    return float(values[:, role == NAMES].mean())


# ---- planted towers


@pytest.mark.parametrize(("planted", "other"), [("text", "image"), ("image", "text")])
def test_the_tower_that_memorizes_gets_the_share(planted, other):
    found = split(world([planted]))
    for role, sign in (("candidate", 1), ("independent", -1)):
        whole = mean(found.clipmem, role)
        assert sign * whole > 0.1
        assert mean(getattr(found, planted), role) / whole > 0.9
        assert abs(mean(getattr(found, other), role) / whole) < 0.1
    for role in ("shared", "external"):
        assert abs(mean(found.image, role)) < 0.03
        assert abs(mean(found.text, role)) < 0.03
    judged = towers.reliability(found, ROLES, D)
    assert judged["reliable"]
    assert judged["failures"] == []


def test_both_towers_share():
    found = split(world(["image", "text"]))
    share = mean(found.text, "candidate") / mean(found.clipmem, "candidate")
    assert 0.35 < share < 0.65


WORDS = (
    *("red", "green", "blue", "old", "new", "big", "small", "cat", "dog", "house"),
    *("tree", "car", "boat", "ship", "bird", "fish", "hand", "foot", "sun", "moon"),
)
SMALL = {"shared": 70, "candidate": 35, "external": 35}
SMALL_ROLES = [role for role, size in SMALL.items() for _ in range(size)]


def small_means(encoder, pts):
    return towers.means_of(embed(encoder, pts))


def embed(encoder, pts):
    pixels, uids = pts.pixels[SQUARE], pts.uids.to_list()
    inputs = passes.Inputs(pixels, np.arange(len(pts)), pts.captions, uids)
    return passes.embed(encoder, inputs, EmbedSection(), TrainSection())


def small_points():
    pts = points(len(SMALL_ROLES))
    rng = np.random.default_rng(1)
    captions = [[" ".join(rng.choice(WORDS, size=4, replace=False))] for _ in SMALL_ROLES]
    columns = {"role": pl.Series(SMALL_ROLES), "captions": pl.Series(captions)}
    return replace(pts, table=pts.table.with_columns(**columns))


def fit(encoder, pts, rows, tower, steps, seed=0):
    """Train one tower, or both, on some pairs, all of them in every batch."""
    module = encoder.module.train()
    trained = [
        parameter
        for name, parameter in module.named_parameters()
        if name != "token_embedding.weight"  # large, and slow to train
        and (tower == "both" or name.startswith("visual.") == (tower == "image"))
    ]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    tokens = encoder.tokenize([pts.captions[row][0] for row in rows])
    pixels = normalize_pixels(as_float(torch.from_numpy(pts.pixels[SQUARE][rows])), encoder.mean, encoder.std)
    for _ in range(steps):
        image, text = (
            torch.nn.functional.normalize(e, dim=1) for e in (encoder.encode_image(pixels), encoder.encode_text(tokens))
        )
        loss = openclip.contrastive_loss(image, text, torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.slow
def test_one_tower_of_a_real_model_trained_on(tower):
    """G is trained on the shared pairs; f is g with one tower trained on, with the candidates too: the share is its."""
    pts = small_points()
    names = np.array(SMALL_ROLES)
    f, g = (openclip.create("clipmem-micro", seed=4) for _ in range(2))
    for encoder in (f, g):
        fit(encoder, pts, np.flatnonzero(names == "shared"), "both", 60)
    fit(f, pts, np.flatnonzero(names != "external"), tower, 60)
    found = towers.swap({0: small_means(f, pts)}, {0: small_means(g, pts)}, SMALL_ROLES, weight=1.0)
    own, other = (found.image, found.text) if tower == "image" else (found.text, found.image)
    whole = found.clipmem[:, names == "candidate"].mean()
    print(tower, whole, own[:, names == "candidate"].mean() / whole, towers.reliability(found, SMALL_ROLES, 32))  # noqa: T201
    assert whole > 0.2
    assert own[:, names == "candidate"].mean() / whole > 0.8
    assert abs(other[:, names == "candidate"].mean() / whole) < 0.2
    # the tower that is the same is mapped onto itself
    still = found.text_fit if tower == "image" else found.image_fit
    assert still[0].external == pytest.approx(1, abs=1e-9)


def test_a_tower_turned_against_the_other_is_unreliable():
    made = world(["text"], turn=False)
    rotation = torch.from_numpy(np.linalg.qr(np.random.default_rng(3).standard_normal((D, D)))[0])
    broken = {"f": made["f"], "g": made["g"]._replace(text=made["g"].text @ rotation)}
    judged = towers.reliability(split(broken), ROLES, D)
    assert not judged["reliable"]
    assert "gap" in [one["check"] for one in judged["failures"]]
    # turned together, nothing is lost
    together = {"f": made["f"], "g": towers.Means(*(part @ rotation for part in made["g"]))}
    assert towers.reliability(split(together), ROLES, D)["gap"] < 0.05


# ---- the equations


def by_loops(image, text, external, weight):
    rows = []
    for i in range(N):
        bank = [j for j in range(N) if external[j] and j != i]
        a = float(image[i] @ text[i])
        b = np.mean([float(image[i] @ text[j]) for j in bank]) + np.mean([float(image[j] @ text[i]) for j in bank])
        rows.append(a - weight * b)
    return np.array(rows)


def test_swap_equals_loops():
    made = world(["text"])
    shared, external = NAMES == "shared", NAMES == "external"
    found = split(made, weight=0.5)
    f, g = ([part.numpy() for part in made[side]] for side in "fg")
    np.testing.assert_allclose(found.ff[0], by_loops(f[0], f[1], external, 0.5), atol=1e-12)
    np.testing.assert_allclose(found.gg[0], by_loops(g[0], g[1], external, 0.5), atol=1e-12)

    def turned(tower, rows):
        u, _, vt = np.linalg.svd(g[tower][rows].T @ f[tower][rows])
        return g[tower] @ u @ vt

    place = np.cumsum(shared) - 1
    even = shared & (place % 2 == 1)
    for rows, inside in ((shared, ~shared), (shared & ~even, even), (even, shared & ~even)):
        fg = by_loops(f[0], turned(1, rows), external, 0.5)
        gf = by_loops(turned(0, rows), f[1], external, 0.5)
        np.testing.assert_allclose(found.fg[0, inside], fg[inside], atol=1e-12)
        np.testing.assert_allclose(found.gf[0, inside], gf[inside], atol=1e-12)
    target = f[1][external]
    error = ((turned(1, shared)[external] - target) ** 2).sum() / ((target - target.mean(axis=0)) ** 2).sum()
    assert found.text_fit[0].external == pytest.approx(1 - error)


def test_shares_sum_to_the_score_and_follow_the_order():
    found = split(world(["image", "text"], noise=0.3))
    np.testing.assert_allclose(found.image + found.text, found.clipmem, atol=1e-12)
    # swapping the names of the towers swaps the shares
    mirrored = {side: towers.Means(one.text, one.image) for side, one in world(["image", "text"], noise=0.3).items()}
    other = split(mirrored)
    np.testing.assert_allclose(other.image, found.text, atol=1e-12)
    np.testing.assert_allclose(other.text, found.image, atol=1e-12)


def test_the_map_is_orthogonal_and_undoes_a_rotation():
    rng = np.random.default_rng(0)
    rotation = torch.from_numpy(np.linalg.qr(rng.standard_normal((D, D)))[0])
    rows = torch.from_numpy(rng.standard_normal((50, D)))
    found = towers.orthogonal_map(rows @ rotation.T, rows)
    torch.testing.assert_close(found, rotation)
    noisy = towers.orthogonal_map(rows, torch.from_numpy(rng.standard_normal((50, D))))
    torch.testing.assert_close(noisy @ noisy.T, torch.eye(D, dtype=torch.float64))


def test_explained():
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert towers.explained(rows, rows) == 1
    assert towers.explained(rows.mean(dim=0).expand(2, 2), rows) == 0
    assert towers.explained(torch.ones(2, 2), torch.ones(2, 2)) == 1
    assert towers.explained(torch.zeros(2, 2), torch.ones(2, 2)) == -np.inf


# ---- when not to trust it


def test_unrelated_spaces_are_unreliable():
    found = split(world(["text"], noise=1.0))
    judged = towers.reliability(found, ROLES, D)
    assert not judged["reliable"]
    assert {one["limit"] for one in judged["failures"] if one["check"] == "fit"} == {0.5}


def test_too_few_shared_pairs_are_unreliable():
    judged = towers.reliability(split(world(["text"])), ROLES, 41)
    assert judged["failures"] == [{"check": "pairs", "of": "shared", "value": 40, "limit": 41}]


def test_pairs_that_nobody_saw_must_not_be_split():
    found = split(world(["text"]))
    skewed = found._replace(gf=found.gf - 0.5 * (NAMES == "external"))
    judged = towers.reliability(skewed, ROLES, D)
    assert judged["external_bias"] > 0.25
    assert (judged["failures"][0]["check"], judged["failures"][0]["of"]) == ("bias", "external")


def test_no_map_without_shared_pairs():
    made = world(["text"])
    roles = ["candidate" if role == "shared" else role for role in ROLES]
    with pytest.raises(
        InputError, match=r"^tower swap: got 0 shared and 40 external pairs, expected two or more of both"
    ):
        towers.swap({0: made["f"]}, {0: made["g"]}, roles, weight=1.0)


# ---- summary


def test_summary_has_intervals_and_no_fraction_of_nothing():
    found = split(world(["text"]))
    judged = towers.reliability(found, ROLES, D)
    groups = [str(k) for k in range(N)]
    document = judged | {"roles": towers.summarize(found, ROLES, groups, confidence=0.95)}
    json.dumps(document, allow_nan=False)
    row = document["roles"]["candidate"]
    assert row["n"] == 30
    assert row["text_share"]["low"] < row["text_share"]["mean"] < row["text_share"]["high"]
    assert row["text_share"]["mean"] == pytest.approx(mean(found.text, "candidate"))
    assert row["text_minus_image"]["low"] > 0
    assert row["text_fraction"] > 0.9
    assert document["roles"]["external"]["text_fraction"] is None


# ---- the driver


def test_localize_writes_its_tables(tmp_path):
    pts = points(40)
    roles = ["shared"] * 16 + ["candidate"] * 8 + ["independent"] * 8 + ["external"] * 8
    pts = replace(pts, table=pts.table.with_columns(role=pl.Series(roles)))
    folder = RunFolder(tmp_path)
    keys = [(side, seed) for side in "fg" for seed in (0, 3)]
    models = {(side, seed): openclip.create("clipmem-micro", seed=10 * (side == "g") + seed) for side, seed in keys}
    for (side, seed), encoder in models.items():
        passes.save(embed(encoder, pts), folder.embedding_dir(side, seed))
    recipe = tiny_recipe("train.seeds=[0,3]", "localize.views=2", "localize.pairs=6")
    done = []
    load = lambda side, seed: models[side, seed]  # noqa: E731
    files = localize(folder, pts, recipe, load, progress=done.append)
    assert [file.name for file in files] == [
        *("units.parquet", "layers.parquet", "towers.parquet", "towers.json", "settings.json")
    ]
    assert sum(done) == work(pts, recipe) == 24 * 2 * 2 * 2
    units, layers, shares = (pl.read_parquet(file) for file in files[:3])
    assert set(units.select("side", "seed").unique().rows()) == {("f", 0), ("f", 3), ("g", 0), ("g", 3)}
    candidates = {uid for uid, role in zip(pts.uids, roles, strict=True) if role == "candidate"}
    assert set(units["uid"].drop_nulls()) <= candidates
    assert layers.filter(pl.col("role") == "candidate")["n"].max() == 6
    assert shares.schema == SCHEMAS["localize/towers"]
    assert shares["uid"].to_list() == pts.uids.to_list()
    np.testing.assert_allclose(shares["image_share"] + shares["text_share"], shares["clipmem"], atol=1e-12)
    assert (shares["text_low"] < shares["text_share"]).all()
    sampled = set(sample_pairs(pts, recipe).uids)
    assert {uid for uid, value in shares.select("uid", "image_sslmem").rows() if value is not None} == sampled
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in localize(folder, pts, recipe, load)] == before
    document = json.loads(files[3].read_text())
    assert document["reliable"] is False
    assert document["failures"][0]["limit"] == 32


def test_localize_refuses_what_does_not_fit(tmp_path):
    pts = points(6)
    few = Embeddings(torch.ones(4, 1, 3), torch.ones(4, 3), torch.arange(4))
    for side in "fg":
        passes.save(few, RunFolder(tmp_path).embedding_dir(side, 0))
    with pytest.raises(InputError, match=r"^embeddings of f, seed 0: got 4 pairs, expected 6, one per row of the"):
        localize(RunFolder(tmp_path), pts, tiny_recipe("train.seeds=[0]"), lambda side, seed: None)
