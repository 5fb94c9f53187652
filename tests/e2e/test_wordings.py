"""Studies over several wordings: every protocol, the first captions' numbers unchanged, and resumed."""

import polars as pl
import pytest

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.study import pool
from clipmem.study.plan import PlannedStudy
from tests.e2e.test_study import contents
from tests.tiny import tiny_recipe, write_parquet

pytestmark = pytest.mark.slow

PROTOCOLS = {
    "four-way": (),
    "subsample": ("protocol=subsample", "subsample.models=4", "train.epochs=1"),
    "leave-one-out": ("protocol=leave-one-out", "leave_one_out.pairs=2", "train.seeds=[0]", "train.epochs=1"),
}
ADDED = ("clipmem_wordings", "f_wordings", "g_wordings")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs with one to four captions, all of their own."""
    texts = [[f"thing number {k}, {place}" for place in range(1 + k % 4)] for k in range(130)]
    return write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", 130, captions=texts)


def recipe(data, *settings):
    return tiny_recipe(f"data.path={data}", "data.source=parquet", "split.near_duplicates=false", *settings)


@pytest.fixture(
    scope="module",
    params=[name if name == "four-way" else pytest.param(name, marks=pytest.mark.slow) for name in sorted(PROTOCOLS)],
)
def studies(request, data, tmp_path_factory):
    """The same study over one wording, and over three."""
    place, settings = tmp_path_factory.mktemp("runs"), PROTOCOLS[request.param]
    with pool.reused():
        return [clipmem.run(recipe(data, *settings, f"evaluate.wordings={k}"), place / str(k)) for k in (1, 3)]


def test_what_is_taken_on_the_first_caption_stays_as_it_is(studies):
    plain, more = studies
    before, after = contents(plain.path), contents(more.path)
    kept = [name for name in before if name.startswith("embeddings/")]
    assert kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    for name in ("scores", "seed_scores"):
        one, other = getattr(plain, name), getattr(more, name)
        added = [column for column in one.columns if column in ADDED]
        assert one.drop(added).equals(other.drop(added))
        assert all(one[column].null_count() == one.height for column in added)
    same = ("roles", "half_difference", "tests", "stability", "noise_floor", "captions")
    assert all(getattr(more.summary, key) == getattr(plain.summary, key) for key in same)
    assert plain.summary.wordings is None


def test_scores_over_all_wordings(studies):
    more = studies[1]
    assert more.scores["clipmem_wordings"].null_count() == 0
    for side in "fg":
        assert more.seed_scores[f"{side}_wordings"].is_null().equals(more.seed_scores[side].is_null())
    captions = dict(more.pairs.select("uid", pl.col("captions").list.len()).iter_rows())
    source = dict(more.splits.select("uid", "captions_from").iter_rows())
    found = more.summary.wordings
    assert found.count == 3
    for role, entry in found.roles.items():
        rows = more.scores.filter(role=role)
        assert entry.mean == pytest.approx(rows["clipmem_wordings"].mean(), abs=1e-9)
        assert set(entry.document()) == set(more.summary.roles[role].document())
    study = PlannedStudy(more.path)
    # a swapped pair has the captions of the pair that its caption is from
    assert [len(own) for own in study.wordings] == [min(captions[source[uid]], 3) - 1 for uid in study.pair_uids]
    assert study.splits["planted"].any()
    metrics = more.summary.utility.metrics
    assert all("retrieval_wordings_recall@5" in own for own in metrics.values())
    assert "over all captions" in " ".join(more.report.read_text(encoding="utf-8").lower().split())


def test_deleted_stages_come_back(studies):
    more = studies[1]
    before, folder = contents(more.path), RunFolder(more.path)
    next(more.path.glob("embeddings/*/seed-*/wordings.npy")).unlink()
    for stage in ("score", "evaluate", "report"):
        folder.marker(stage).unlink()
    clipmem.run(more.recipe, more.path)
    assert contents(more.path) == before


@pytest.mark.parametrize("studies", ["four-way"], indirect=True)
def test_given_models_have_the_scores_of_the_study(studies, data, tmp_path):
    more = studies[1]
    models = {name: [str(more.path / "models" / side / f"seed-{k}") for k in (0, 1)] for name, side in SIDES}
    settings = [f"given.{name}={own}" for name, own in models.items()]
    settings += ["protocol=given", f"given.roles={more.path / 'splits.parquet'}", "evaluate.wordings=3"]
    found = clipmem.run(recipe(data, *settings), tmp_path / "run").scores
    assert found["clipmem_wordings"].to_numpy() == pytest.approx(more.scores["clipmem_wordings"].to_numpy(), abs=1e-6)


SIDES = (("target", "f"), ("reference", "g"))
