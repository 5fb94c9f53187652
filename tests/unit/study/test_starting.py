"""`clipmem init --data`: sizes that fit, what is refused, and that a study of them can be split."""

from collections import Counter

import pytest

from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.data.sources import open_source
from clipmem.data.splits import ROLES
from clipmem.study.starting import FEWEST, sizes_of, start, training_of
from tests.tiny import write_parquet
from tests.unit.data.sources import formats


@pytest.mark.parametrize("n", [50, 60, 199, 1914, 2400, 47_500, 118_287, 3_000_000])
def test_sizes_have_the_demos_proportions_and_leave_some_over(n):
    sizes = sizes_of(n)
    assert list(sizes) == ["shared", "candidate", "independent", "external"]
    assert sizes["candidate"] == sizes["independent"] == sizes["external"] >= 4
    assert sum(sizes.values()) <= 0.95 * n
    assert sizes["candidate"] <= 5000
    assert sizes["shared"] <= 65_000
    if n <= 47_500:
        assert sizes["shared"] / sizes["candidate"] == pytest.approx(6.5, rel=0.4 if n < 200 else 0.01)
        assert sum(sizes.values()) == int(0.95 * n)


@pytest.mark.parametrize("n", [39, 45, 150, 1500, 15_000, 70_000])
def test_training_takes_the_demos_steps_where_epochs_allow(n):
    batch, epochs = training_of(n)
    assert 2 <= batch <= min(128, n / 4)
    assert 10 <= epochs <= 100
    steps = -(-n // batch) * epochs
    assert steps == pytest.approx(432, rel=0.02) or epochs == 10


def test_the_recipe_is_what_was_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formats.tsv_file(tmp_path / "photos", formats.some_pairs(80))
    begun = start("photos/", protocol="subsample", settings=["train.epochs=3", "data.group_column=title"])
    recipe = load_recipe(begun.text("heading"))
    assert recipe == begun.recipe
    assert (recipe.protocol, recipe.train.epochs) == ("subsample", 3)
    assert (recipe.data.source, recipe.data.path) == ("csv", "photos/train.tsv")
    assert (recipe.data.image_column, recipe.data.caption_column, recipe.data.group_column) == (
        "filepath",
        "title",
        "title",
    )
    assert (recipe.split.planted, recipe.train.captions) == (0, 1)
    assert recipe.leave_one_out.pairs == recipe.split.candidate == 8
    assert any("2 per pair" in note for note in begun.notes)
    assert open_source(recipe.data).pairs().height == 80
    assert all(line.startswith("#") for line in begun.text("heading").splitlines()[: 1 + len(begun.notes)])


def test_a_name_cannot_leave_its_comment(tmp_path):
    folder = tmp_path / "a\n[train]\nepochs = 7\n#"
    begun = start(str(formats.imagefolder_csv(folder, formats.some_pairs(60))))
    assert load_recipe(begun.text(f"of {folder}")) == begun.recipe
    assert begun.recipe.data.path == str(folder)


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        start(str(write_parquet(tmp_path / "few.parquet", FEWEST - 1)))
    assert caught.value.got.startswith("49 usable pairs")
    assert caught.value.expected.startswith("50 or more")
    start(str(write_parquet(tmp_path / "enough.parquet", FEWEST)))


def test_broken_images_do_not_count(tmp_path):
    pairs = formats.some_pairs(70)
    pairs = [(name, data[: len(data) // 2] if k < 10 else data, texts) for k, (name, data, texts) in enumerate(pairs)]
    recipe = start(str(formats.imagefolder_txt(tmp_path / "photos", pairs))).recipe
    assert recipe.split.model_dump(include={"shared", "candidate"}) == {
        role: size for role, size in sizes_of(60).items() if role in {"shared", "candidate"}
    }


def grouped(folder, sizes):
    """Pairs of which groups of these sizes have a common group."""
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    pairs = formats.some_pairs(len(groups), captions=1)
    formats.write_images(folder, pairs)
    lines = [f"{name}\t{texts[0]}\t{group}" for (name, _, texts), group in zip(pairs, groups, strict=True)]
    (folder / "pairs.tsv").write_text("\n".join(["filepath\ttitle\tkind", *lines]) + "\n")
    return str(folder / "pairs.tsv")


@pytest.mark.slow
def test_whole_groups_fit_the_sizes(tmp_path):
    path = grouped(tmp_path / "some", [40, 12, 12, *[1] * 60])
    recipe = start(path, settings=["data.group_column=kind"]).recipe
    taken = recipe.split.shared + 3 * recipe.split.candidate
    assert FEWEST <= taken <= Counter(open_source(recipe.data).pairs()["group"]).total()
    with pytest.raises(InputError) as caught:
        start(grouped(tmp_path / "two", [60, 60]), settings=["data.group_column=kind"])
    assert "up to 60" in caught.value.got


def test_given_roles_have_the_sizes_of_their_column(tmp_path):
    given = {"shared": 20, "candidate": 6, "independent": 6, "external": 5, "": 3}
    roles = [role for role, size in given.items() for _ in range(size)]
    pairs = formats.some_pairs(len(roles), captions=1)
    formats.write_images(tmp_path, pairs)
    name, data, _ = pairs[0]  # shared
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    lines = [f"{name}\t{texts[0]}\t{role}" for (name, _, texts), role in zip(pairs, roles, strict=True)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["filepath\ttitle\tpart", *lines]) + "\n")
    begun = start(str(tmp_path / "pairs.tsv"), settings=["data.role_column=part"])
    sizes = given | {"shared": 19}
    assert begun.recipe.split.model_dump(include=set(ROLES)) == {role: sizes[role] for role in ROLES}
    told = " ".join(begun.notes)
    assert "39, 1 record left out; 40 images" in told
    assert "external 5, as in data.role_column" in told
    assert "reserve" not in told


def test_without_data_the_defaults_run_on_the_shipped_pairs():
    recipe = load_recipe(start(protocol="leave-one-out", settings=["train.epochs=2"]).text("x"))
    assert (recipe.protocol, recipe.train.epochs, recipe.data.source) == ("leave-one-out", 2, "auto")
    assert open_source(recipe.data).pairs().height == 1914
    assert start(preset="quick").recipe.split.planted_share == 0.125


def test_the_notes_tell_what_the_recipe_holds(tmp_path):
    path = write_parquet(tmp_path / "pairs.parquet", 60)
    begun = start(str(path), settings=["train.epochs=1", "split.shared=10"])
    told = " ".join(begun.notes)
    assert begun.recipe.train.epochs == 1
    assert "1 epoch in batches of 8, as set" in told
    assert "shared 10," in told
    assert "60, 0 records left out" in told
