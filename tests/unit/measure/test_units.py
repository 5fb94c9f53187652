"""Units and layers: loop references over single inputs, and what must not matter: batches, order, number of pairs."""

import gc
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats

from clipmem.base.errors import InputError
from clipmem.base.random import derive_seed
from clipmem.base.sections import LocalizeSection
from clipmem.base.tables import SCHEMAS
from clipmem.data.decoding import Geometry, decode
from clipmem.data.pairs import Pairs
from clipmem.data.views import Crops, as_float, draw_crops, normalize_pixels, pair_keys, render, text_views
from clipmem.measure.sweep import UNIT_KINDS, Capture, Site, blocks
from clipmem.measure.units import UnitTracker, layer_table, sweep_model, tower_sslmem
from clipmem.models import openclip
from tests.tiny import encoded_image

N = 9
VIEWS = LocalizeSection(views=3, crop="own", crop_scale=(0.3, 0.9), flip=0.5)
SQUARE = Geometry(32)


def points(n=N):
    uids = [f"{(k + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}{k:016x}" for k in range(n)]
    columns = {
        "uid": uids,
        "role": ["candidate" if k % 3 else "external" for k in range(n)],
        "group": [f"g{k // 2}" for k in range(n)],
        "label": ["", *["xyz"[k % 3] for k in range(1, n)]],
        "row": np.arange(n),
        "captions": [
            ["a", *([] if k % 2 else [f"thing {k}", "more"])] if k % 4 < 2 else [f"a big {k}"] for k in range(n)
        ],
    }
    pixels = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(n)])
    return Pairs("test", pl.DataFrame(columns), pixels={SQUARE: pixels})


@pytest.fixture(scope="module")
def models():
    made = {side: openclip.create("clipmem-micro", seed=seed) for side, seed in (("f", 1), ("g", 2))}
    for encoder in made.values():
        encoder.module.eval()
    return made


def single(encoder, pts, k, tower):
    """Activations of the clean input of one pair and of each of its views, one input at a time."""
    with torch.no_grad(), Capture(encoder, tower) as capture:
        if tower == "text":
            clean, views = text_views(pts.captions[k], pts.uids[k], count=3)
            return [capture.read(encoder.tokenize([text])) for text in [clean, *views]]
        batch = torch.from_numpy(pts.pixels[SQUARE][[k]])
        images = [as_float(batch)]
        for view in range(3):
            crop = draw_crops(
                pair_keys([pts.uids[k]]), seed=derive_seed(0, "embed view", view), size=32,
                scale=(0.3, 0.9), ratio=(0.75, 4 / 3), flip=0.5,
            )  # fmt: skip
            images.append(render(batch, Crops(*crop), size=32))
        return [capture.read(normalize_pixels(image, encoder.mean, encoder.std)) for image in images]


def direction(seen, site):
    values = (seen.embedding if site == "embedding" else seen.plain[site])[0].double().numpy()
    return values / np.linalg.norm(values)


def reference(encoder, pts, tower):
    """(layer, kind) → mean activation over views [pair, unit]; (layer, kind) or 'embedding' → L [pair]."""
    mu, distance = {}, {}
    for k in range(len(pts)):
        clean, *views = single(encoder, pts, k, tower)
        for site in clean.units:
            rows = [seen.units[site][0].double().numpy() for seen in (views or [clean])]
            mu.setdefault((site.layer, site.kind), []).append(sum(rows) / len(rows))
        for site in [*clean.plain, "embedding"]:
            lengths = [np.linalg.norm(direction(seen, site) - direction(clean, site)) for seen in views]
            place = site if site == "embedding" else (site.layer, site.kind)
            distance.setdefault(place, []).append(sum(lengths) / len(lengths) if lengths else np.nan)
    return {p: np.stack(v) for p, v in mu.items()}, {p: np.array(v) for p, v in distance.items()}


def ratio(values, rest):
    """UnitMem of one column by the equation, and the row of its largest value."""
    top = max(range(len(values)), key=lambda i: values[i])
    others = [value for i, value in enumerate(values) if i != top]
    low = float(np.mean(others)) if rest == "mean" else float(np.median(others))
    return (values[top] - low) / (values[top] + low), top, values[top], low


@pytest.mark.parametrize("tower", ["image", "text"])
def test_units_and_distances_equal_loops(models, tower):
    pts = points()
    chosen = (pts.table["role"] == "candidate").to_numpy()
    labels = pts.table["label"].to_list()
    table, distances = sweep_model(
        models["f"], pts, VIEWS, unit_pairs=chosen, model=("f", 5), towers=[tower], batch_size=4
    )
    mu, expected = reference(models["f"], pts, tower)
    assert table.schema == SCHEMAS["localize/units"]
    assert set(table["side"]) == {"f"}
    assert set(table["seed"]) == {5}
    owners = np.flatnonzero(chosen).tolist()
    for (layer, kind), values in mu.items():
        rows = table.filter((pl.col("layer") == layer) & (pl.col("kind") == kind)).sort("unit")
        assert rows.height == values.shape[1]
        for row in rows.iter_rows(named=True):
            column = values[owners, row["unit"]]
            if column.max() == 0:
                assert (row["unitmem"], row["uid"]) == (None, None)
                continue
            value, _, high, low = ratio(column, "mean")
            assert row["unitmem"] == pytest.approx(value, abs=1e-4)
            assert (row["mu_max"], row["mu_rest"]) == pytest.approx((high, low), abs=1e-5)
            assert row["unitmem_median"] == pytest.approx(ratio(column, "median")[0], abs=2e-4)
            assert column[[pts.uids[i] for i in owners].index(row["uid"])] == pytest.approx(high, abs=1e-6)
            classes = {labels[i] for i in owners} - {""}
            present = {c: np.mean([values[i, row["unit"]] for i in owners if labels[i] == c]) for c in classes}
            assert row["classmem"] == pytest.approx(ratio(list(present.values()), "mean")[0], abs=1e-4)
            # two classes may tie (the same caption in both): any of the largest will do
            assert present[row["label"]] == pytest.approx(max(present.values()), abs=1e-6)
    for site, values in distances.items():
        name = "embedding" if site.kind == "embedding" else (site.layer, site.kind)
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
    assert sum(site.kind == "embedding" for site in distances) == 1
    if tower == "text":  # the caption "a" has no edit
        for values in distances.values():
            assert np.isnan(values).tolist() == [own == ["a"] for own in pts.captions]


def test_nothing_depends_on_the_batch_or_on_the_other_pairs(models):
    pts = points()
    whole = sweep_model(models["f"], pts, VIEWS, unit_pairs=None)
    again = sweep_model(models["f"], pts, VIEWS, unit_pairs=None)
    assert whole[0].equals(again[0])
    other = sweep_model(models["f"], pts, VIEWS, unit_pairs=None, batch_size=4)
    for name in ("unitmem", "unitmem_median", "classmem", "mu_max", "mu_rest"):
        np.testing.assert_allclose(whole[0][name].to_numpy(), other[0][name].to_numpy(), atol=2e-4)
    few = sweep_model(models["f"], replace(pts, table=pts.table[[7, 2, 5]]), VIEWS, unit_pairs=None)
    for place, values in few[1].items():
        np.testing.assert_allclose(values, whole[1][place][[7, 2, 5]], atol=1e-5)


def test_no_views_take_the_clean_input(models):
    pts = points()
    settings = VIEWS.model_copy(update={"views": 0})
    table, distances = sweep_model(models["f"], pts, settings, unit_pairs=None)
    assert table["unitmem"].null_count() < table.height
    assert all(np.isnan(values).all() for values in distances.values())


def test_one_class_or_none_has_no_classmem(models):
    pts = points(4)
    same = replace(pts, table=pts.table.with_columns(label=pl.Series(["x", "x", "", "x"])))
    table, _ = sweep_model(models["f"], same, VIEWS, unit_pairs=None, towers=["image"])
    assert table["classmem"].null_count() == table.height
    assert table["label"].null_count() == table.height


def test_a_dead_unit_has_no_value_and_no_owner():
    encoder = openclip.create("clipmem-micro", seed=0)
    with torch.no_grad():
        fc = encoder.module.visual.transformer.resblocks[0].mlp.c_fc
        fc.weight[3], fc.bias[3] = 0, -50.0
    table, _ = sweep_model(encoder, points(4), VIEWS, unit_pairs=None, towers=["image"])
    row = table.filter((pl.col("layer") == 1) & (pl.col("kind") == "mlp") & (pl.col("unit") == 3)).row(0, named=True)
    assert (row["unitmem"], row["unitmem_median"], row["classmem"], row["uid"]) == (None, None, None, None)
    assert row["mu_max"] == 0


def largest_live_bytes(encoder, n):
    """Bytes of all live tensors other than the model's, at the worst end of a block, with the states that are kept."""
    pts = points(n)
    gc.collect()
    own = {id(t) for t in (*encoder.module.parameters(), *encoder.module.buffers())}
    tracker, peak = UnitTracker(pts, np.ones(n, dtype=bool), hold_bytes=0), 0
    for block in blocks(encoder, pts, VIEWS, tower="image", batch_size=4):
        tracker.add(block)
        # a list of them would keep them alive until the next block
        live = (t for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and id(t) not in own)
        peak = max(peak, sum(t.numel() * t.element_size() for t in live))
    return peak


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pairs(models):
    few, many = largest_live_bytes(models["f"], 8), largest_live_bytes(models["f"], 40)
    block = next(blocks(models["f"], points(2), VIEWS, tower="image"))
    activations = (40 - 8) * 4 * sum(values.shape[1] for values in block.units.values())
    assert many - few < 0.1 * activations


def test_one_pair_has_no_unitmem():
    pts = points(3)
    with pytest.raises(InputError, match=r"^pairs for UnitMem: got 1, expected 2 or more"):
        UnitTracker(pts, np.array([True, False, False]))


# ---- layers


def test_layer_table_equals_loops(models):
    pts, chosen = points(), (points().table["role"] == "candidate").to_numpy()
    roles = pts.table["role"].to_numpy()
    frames, distances = [], {"f": {}, "g": {}}
    for side, encoder in models.items():
        frame, distances[side][0] = sweep_model(encoder, pts, VIEWS, unit_pairs=chosen, model=(side, 0))
        frames.append(frame)
    units = pl.concat(frames)
    table = layer_table(pts, distances, units)
    loops = {(s, t): reference(models[s], pts, t)[1] for s in "fg" for t in ("image", "text")}
    assert table.height == 2 * ((2 * 3 + 1) + (1 * 3 + 1))
    for row in table.iter_rows(named=True):
        own = [i for i, role in enumerate(roles) if role == row["role"]]
        place = "embedding" if row["kind"] == "embedding" else (row["layer"], row["kind"])
        score = [loops["g", row["tower"]][place][i] - loops["f", row["tower"]][place][i] for i in own]
        score = [value for value in score if np.isfinite(value)]
        assert row["n"] == len(score)
        assert row["layermem"] == pytest.approx(np.mean(score), abs=1e-5)
        assert row["low"] <= row["layermem"] <= row["high"]
        if row["kind"] in UNIT_KINDS and row["role"] == "candidate":
            for side, name in (("f", "unitmem"), ("g", "reference_unitmem")):
                inside = units.filter(
                    (pl.col("side") == side) & (pl.col("tower") == row["tower"])
                    & (pl.col("layer") == row["layer"]) & (pl.col("kind") == row["kind"])
                )  # fmt: skip
                assert row["n_units"] == inside.height
                assert row[f"{name}_mean"] == pytest.approx(inside["unitmem"].mean())
                assert row[f"{name}_low"] < row[f"{name}_mean"] < row[f"{name}_high"]
        else:
            assert row["unitmem_mean"] is None
    family = []
    for row in table.iter_rows(named=True):
        if row["role"] != "candidate":
            assert row["control_difference"] is row["control_p"] is row["control_p_holm"] is None
            continue
        place = "embedding" if row["kind"] == "embedding" else (row["layer"], row["kind"])
        f, g = (np.array(loops[side, row["tower"]][place]) for side in "fg")
        two = {role: (g - f)[roles == role] for role in ("candidate", "external")}
        a, b = (values[np.isfinite(values)] for values in two.values())
        assert row["control_difference"] == pytest.approx(a.mean() - b.mean(), abs=1e-5)
        assert row["control_p"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, abs=1e-3)
        family.append(row)
    family.sort(key=lambda row: row["control_p"])
    steps = np.maximum.accumulate([min(1.0, (len(family) - k) * row["control_p"]) for k, row in enumerate(family)])
    assert [row["control_p_holm"] for row in family] == pytest.approx(steps)
    by_layer = {(r["role"], r["tower"], r["kind"], r["layer"]): r for r in table.iter_rows(named=True)}
    for (role, tower, kind, layer), row in by_layer.items():
        if layer == 1 or kind == "embedding":
            assert row["delta"] is None
        else:
            step = row["layermem"] - by_layer[role, tower, kind, layer - 1]["layermem"]
            assert row["delta"] == pytest.approx(step)
    assert table.equals(layer_table(pts, distances, units))
    sslmem = tower_sslmem(distances, pts.uids.to_list(), "text")
    assert [sslmem[uid] is None for uid in pts.uids] == [own == ["a"] for own in pts.captions]


def test_a_role_without_any_view_has_null_layermem():
    pts = points(2)
    distances = {Site("image", 1, "embedding", "", "ntu"): np.array([np.nan, 0.5])}
    both = {"f": {0: distances}, "g": {0: distances}}
    table = layer_table(pts, both, pl.DataFrame(schema=SCHEMAS["localize/units"]))
    assert table.select("role", "n", "layermem").rows() == [("external", 0, None), ("candidate", 1, 0.0)]
