"""Neighbors against a loop over the definition."""

import numpy as np
import pytest

from clipmem.base.errors import InputError
from clipmem.report.explorer import neighbors
from clipmem.report.explorer.neighbors import Embedded, Vectors

# where umap-learn is installed, for whoever works on the map
pytestmark = pytest.mark.filterwarnings("ignore:Tensorflow not installed")


def mean_unit(values):
    return np.mean([row / np.linalg.norm(row) if row.any() else row for row in values], axis=0)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """23 pairs with 2 views and 1 to 3 captions, of 30 rows of the split table; files larger than a block."""
    monkeypatch.setattr(neighbors, "_BLOCK", 7)
    rng, rows = np.random.default_rng(0), 23
    owner = np.full(30, -1)
    owner[rng.permutation(30)[:rows]] = rng.permutation(rows)
    image = rng.normal(size=(30, 2, 8)).astype(np.float32)
    image[5] = 0
    pair = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    text = rng.normal(size=(len(pair), 8)).astype(np.float32)
    for name, values in (("image", image), ("text", text), ("text_pair", pair)):
        np.save(tmp_path / f"{name}.npy", values)
    where = {int(row): split for split, row in enumerate(owner) if row >= 0}
    means = {
        "image": [mean_unit(image[where[row]]) for row in range(rows)],
        "text": [mean_unit(text[pair == where[row]]) for row in range(rows)],
    }
    return Embedded(rows, {"f": tmp_path}, owner), means


@pytest.mark.parametrize("space", ["image", "text"])
def test_nearest_are_those_of_the_definition(study, space):
    embedded, means = study
    for row in range(embedded.rows):
        expected = {k: float(means[space][row] @ means[space][k]) for k in range(embedded.rows) if k != row}
        found = embedded.nearest(row, space, "f", 5)
        best = sorted(expected.values(), reverse=True)[:5]
        np.testing.assert_allclose([one["similarity"] for one in found], best, atol=1e-4)
        np.testing.assert_allclose([expected[one["row"]] for one in found], best, atol=1e-6)


@pytest.mark.parametrize("space", ["image", "text"])
def test_all_at_once_gives_the_same(study, space):
    embedded, _ = study
    found = list(embedded.nearest_among(np.arange(embedded.rows), space, "f", 4))
    assert [[one["row"] for one in own] for own in found] == [
        [one["row"] for one in embedded.nearest(row, space, "f", 4)] for row in range(embedded.rows)
    ]
    chosen = np.array([3, 7, 11])
    for place, own in enumerate(embedded.nearest_among(chosen, space, "f", 10)):
        assert sorted(one["row"] for one in own) == sorted({0, 1, 2} - {place})


def test_files_in_memory_and_in_blocks_agree(study):
    embedded, _ = study
    vectors, two = embedded.vectors("image", "f"), np.eye(8, 2, dtype=np.float32) + 1
    vectors._start = 0  # as a small file
    whole = vectors.products(two)
    vectors._start, vectors._lengths = np.load(vectors.file, mmap_mode="r").offset, None
    np.testing.assert_allclose(vectors.products(two), whole, atol=1e-6)
    np.testing.assert_array_equal(vectors.products(two), vectors.products(two))


@pytest.mark.parametrize("space", ["image", "text"])
def test_products_are_those_of_the_mean_unit_embeddings(study, space):
    embedded, means = study
    directions = np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32)
    expected = [means[space][row] @ directions for row in range(embedded.rows)]
    vectors = embedded.vectors(space, "f")
    for _ in range(2):  # the second time with lengths that are known
        np.testing.assert_allclose(vectors.products(directions), expected, atol=1e-5)


def test_maps_have_the_largest_variance(study):
    embedded, means = study
    found = embedded.maps()
    values = np.array(means["image"])
    singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    for axis, length in zip("xy", singular, strict=False):
        np.testing.assert_allclose(np.linalg.norm(found[f"pca_{axis}"]), length, rtol=1e-4)


@pytest.mark.parametrize("rows", [neighbors._SMALLEST, 90])
def test_umap_keeps_groups_together(tmp_path, rows):
    """Three groups, and a pair without an embedding; twice the same. umap-learn with numba, 213 MB, is not in `dev`."""
    pytest.importorskip("umap", reason="umap-learn is not installed: pip install umap-learn")
    rng, group = np.random.default_rng(0), np.arange(rows) % 3
    image = (np.eye(8)[group] + rng.normal(0, 0.05, (rows, 8))).astype(np.float32)[:, None]
    np.save(tmp_path / "image.npy", image)
    owner = np.where(np.arange(rows) == 4, -1, np.arange(rows))
    found, again = (Embedded(rows, {"f": tmp_path}, owner).maps() for _ in range(2))
    place = np.stack([found["umap_x"], found["umap_y"]], axis=1)
    np.testing.assert_array_equal(place, np.stack([again["umap_x"], again["umap_y"]], axis=1))
    assert np.isfinite(place).all()
    if rows > neighbors._SMALLEST:
        distance = np.linalg.norm(place[:, None] - place, axis=2) + np.diag(np.full(rows, np.inf))
        nearest = distance.argmin(axis=1)
        assert np.delete(group[nearest] == group, 4).mean() > 0.95


def test_unknown_space_side_and_wrong_files(study, tmp_path):
    embedded, _ = study
    with pytest.raises(InputError):
        embedded.nearest(0, "sound", "f", 3)
    with pytest.raises(InputError) as error:
        embedded.nearest(0, "image", "g", 3)
    assert error.value.what == "side"
    np.save(tmp_path / "wide.npy", np.zeros((4, 8)))
    with pytest.raises(InputError, match="float64"):
        Vectors(tmp_path / "wide.npy", np.zeros(4, dtype=np.int64), 4)
