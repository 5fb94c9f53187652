"""All captions of a pair: kept apart from its first ones, and scored as plain loops do it."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.base.tables import read_table, write_table
from clipmem.data.decoding import decode
from clipmem.functional import alignment
from clipmem.models import openclip, passes
from clipmem.models.passes import Embeddings
from clipmem.scoring.aligning import parts_of
from clipmem.scoring.design import combine
from clipmem.scoring.protocols.four_way import paired_design
from clipmem.scoring.summary import Scored, over_wordings, roles
from clipmem.study.plan import PlannedStudy
from clipmem.train.paired import TrainingSet
from tests.reference import loops
from tests.tiny import encoded_image, tiny_recipe

N, D = 9, 4
MORE = (0, 3, 1, 2, 0, 4, 1, 0, 2)  # captions of each pair after its first
BANK = np.arange(N) >= 6
UIDS = [f"{k:032x}" for k in range(N)]


def embeddings(seed, more=MORE):
    """One caption per pair, and its further wordings, not in the order of the pairs."""
    draw = torch.Generator().manual_seed(seed)
    pair = torch.repeat_interleave(torch.arange(len(more)), torch.tensor(more, dtype=torch.long))
    pair = pair[torch.randperm(len(pair), generator=draw)]
    image, text = torch.randn(len(more), 2, D, generator=draw), torch.randn(len(more), D, generator=draw)
    further = torch.randn(len(pair), D, generator=draw)
    return Embeddings(image, text, torch.arange(len(more)), wordings=further, wordings_pair=pair)


def captions_of(one, pair):
    """All captions of a pair, by a loop."""
    further = zip(one.wordings.tolist(), one.wordings_pair.tolist(), strict=True)
    return [one.text[pair].tolist(), *(row for row, owner in further if owner == pair)]


def by_loop(one):
    """A of every pair over all its wordings, against the bank's pairs with all of theirs."""
    every = [captions_of(one, pair) for pair in range(N)]
    bank = [pair for pair in range(N) if BANK[pair]]
    found = []
    for pair in range(N):
        others = [k for k in bank if k != pair]
        views = [one.image[k].tolist() for k in others]
        found.append(loops.alignment(one.image[pair].tolist(), every[pair], views, [every[k] for k in others]))
    return np.array(found)


# ---- embeddings


def test_all_wordings_are_those_of_each_pair_the_first_before_the_others():
    one = embeddings(0)
    every = one.all_wordings()
    assert every.wordings is every.wordings_pair is None
    for pair in range(N):
        assert every.text[every.text_pair == pair].tolist() == captions_of(one, pair)
    assert every.text_pair.tolist() == sorted(every.text_pair.tolist())
    plain = one._replace(wordings=None, wordings_pair=None)
    assert torch.equal(plain.all_wordings().text, one.text)


@given(more=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_a_wording_is_that_of_every_pair_that_has_it(more):
    one = embeddings(1, more)
    for k in range(6):
        rows, alone = one.wording(k)
        assert rows.tolist() == [pair for pair in range(len(more)) if more[pair] + 1 > k]
        assert alone.text_pair.tolist() == list(range(len(rows)))
        for place, pair in enumerate(rows.tolist()):
            assert alone.text[place].tolist() == captions_of(one, pair)[k]
            assert torch.equal(alone.image[place], one.image[pair])


def test_wordings_leave_the_bytes_of_the_captions(tmp_path):
    encoder = openclip.create("clipmem-micro", seed=7)
    pixels = np.stack([decode(encoded_image(k), size=32, name=str(k)) for k in range(N)])
    captions = [[f"thing {k}" + " and more" * (k % 3)] for k in range(N)]
    more = [[f"wording {j} of {k}" for j in range(count)] for k, count in enumerate(MORE)]
    settings = EmbedSection(batch_size=2, caption_edits=1)
    crops = TrainSection()

    def embed(**given):
        return passes.embed(encoder, passes.Inputs(pixels, np.arange(N), captions, UIDS, **given), settings, crops)

    for name, found in (("with", embed(wordings=more)), ("without", embed())):
        passes.save(found, tmp_path / name)
    files = {file.name: file.read_bytes() for file in passes.files_of(tmp_path / "with")}
    own = {file.name: file.read_bytes() for file in passes.files_of(tmp_path / "without")}
    assert sorted(set(files) - set(own)) == ["wordings.npy", "wordings_pair.npy"]
    assert {name: files[name] for name in own} == own
    loaded = passes.load(tmp_path / "with")
    assert loaded.wordings_pair.tolist() == [k for k, count in enumerate(MORE) for _ in range(count)]
    with torch.inference_mode():
        for k, texts in enumerate(more):
            expected = encoder.encode_text(encoder.tokenize(texts)) if texts else torch.empty(0, 32)
            torch.testing.assert_close(loaded.wordings[loaded.wordings_pair == k], expected, rtol=1e-5, atol=1e-5)
    rows = np.array([5, 0, 3])
    some = passes.load(tmp_path / "with", rows)
    for a, b in zip(some, passes.chosen(loaded, torch.from_numpy(rows)), strict=True):
        assert torch.equal(a, b)
    assert some.wordings_pair.tolist() == [0] * 4 + [2] * 2
    (tmp_path / "with" / "wordings.npy").unlink()
    with pytest.raises(InputError, match=r"wordings\.npy"):
        passes.load(tmp_path / "with")


# ---- scores


def aligned(tmp_path, models, *, all_wordings, alignment_name="clip"):
    """The parts of models on disk, as the stage `score` computes them."""
    splits = pl.DataFrame({"uid": UIDS, "role": ["external" if held else "candidate" for held in BANK]})
    for seed, one in enumerate(models):
        passes.save(one, tmp_path / f"embeddings/f/seed-{seed}")
    study = PlannedStudy(tmp_path, tiny_recipe(f"score.alignment={alignment_name}"))
    study.tables["splits"] = splits
    study.__dict__["labels"] = None
    return study.aligned([TrainingSet("f", seed, (), 0) for seed in range(len(models))], wordings=all_wordings)


def test_the_alignment_over_all_wordings_is_the_loop(tmp_path):
    models = [embeddings(1), embeddings(2)]
    found = aligned(tmp_path, models, all_wordings=True)
    first = aligned(tmp_path, models, all_wordings=False)
    for own, plain, one in zip(found, first, models, strict=True):
        assert alignment(own).numpy() == pytest.approx(by_loop(one), abs=1e-6)
        assert torch.equal(alignment(plain), alignment(parts_of(one, BANK)))
        changed = np.array(MORE) > 0
        assert (abs(own.positive - plain.positive).numpy() > 1e-6).tolist() == changed.tolist()


def test_other_alignments_take_all_wordings_as_well(tmp_path):
    one = embeddings(3, (1, 3, 1, 2, 1, 4, 1, 1, 2))
    every = one.all_wordings()
    for name in ("cmc", "sslmem-text"):
        found = aligned(tmp_path, [one], all_wordings=True, alignment_name=name)[0]
        for a, b in zip(found, parts_of(every, BANK, name), strict=True):
            assert a.numpy() == pytest.approx(b.numpy(), abs=1e-9)


def tables(*, over=True):
    models = {(side, seed): embeddings(10 * seed + (side == "g")) for seed in (0, 1) for side in "fg"}
    splits = pl.DataFrame(
        {
            "uid": UIDS,
            "role": ["candidate"] * 3 + ["independent"] * 3 + ["external"] * 3,
            "group": UIDS,
            "planted": [False] * N,
        }
    )
    design = paired_design([TrainingSet(side, seed, (), 0) for side, seed in models], N)
    parts = [parts_of(one, BANK) for one in models.values()]
    more = [parts_of(one.all_wordings(), BANK) for one in models.values()] if over else []
    return models, splits, combine(design, splits, parts, weight=1.0, confidence=0.95, wordings=more)


def test_tables_have_both(tmp_path):
    models, _, made = tables()
    aligned = {key: by_loop(one) for key, one in models.items()}
    for seed in (0, 1):
        own = made.seed_scores.filter(seed=seed)
        for side in "fg":
            assert own[f"{side}_wordings"].to_numpy() == pytest.approx(aligned[side, seed], abs=1e-9)
    expected = np.mean([aligned["f", seed] - aligned["g", seed] for seed in (0, 1)], axis=0)
    assert made.scores["clipmem_wordings"].to_numpy() == pytest.approx(expected, abs=1e-9)
    plain = tables(over=False)[2]
    for both, one in zip(made, plain, strict=True):
        added = [name for name in one.columns if name.endswith("_wordings")]
        assert one[added].null_count().row(0) == (one.height,) * len(added)
        assert both.drop(added).equals(one.drop(added))
    write_table(tmp_path / "new.parquet", "seed_scores", made.seed_scores)
    assert read_table(tmp_path / "new.parquet", "seed_scores").equals(made.seed_scores)


def test_the_summary_over_wordings_is_that_of_the_scores():
    _, splits, made = tables()
    settings = tiny_recipe().score
    found = over_wordings(splits, made, 5, settings, seed=0)
    assert found is not None
    assert found.count == 5
    for role in ("candidate", "independent", "external"):
        values = made.scores.filter(role=role)["clipmem_wordings"]
        assert found.roles[role].mean == pytest.approx(values.mean(), abs=1e-12)
    half = (found.roles["candidate"].mean - found.roles["independent"].mean) / 2
    assert found.half_difference.mean == pytest.approx(half, abs=1e-12)
    first = roles(Scored(splits, made), seed=0, draws=200, confidence=settings.confidence)
    assert first["candidate"].mean != pytest.approx(found.roles["candidate"].mean, abs=1e-3)
    assert over_wordings(splits, tables(over=False)[2], 5, settings, seed=0) is None
