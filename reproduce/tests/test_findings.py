"""Findings on folders with chosen numbers: every finding gives effects and a figure, and verdicts are those by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.compared import add_contents, build

from clipmem.base.recipes import as_settings
from clipmem_reproduce.effects import Results, dominance, relative, strongest
from clipmem_reproduce.finding import Context, judge
from clipmem_reproduce.findings import FINDINGS, redundancy, tradeoff
from clipmem_reproduce.measured import Measured
from clipmem_reproduce.page import finding_figure
from clipmem_reproduce.reproduction import base_recipe
from clipmem_reproduce.scales import SCALES
from clipmem_reproduce.spec import PRETRAINED, RunSpec

METRICS = {
    "retrieval_wordings_recall@5": 0.4,
    "retrieval_recall@5": 0.4,
    "linear_probe_acc1": 0.5,
    "linear_probe_sublabel_acc1": 0.3,
}


@pytest.fixture(scope="module")
def where():
    """The tiny scale of the redundant regime."""
    return Context(SCALES["redundant", "tiny"], base_recipe("tiny", "redundant"))


@pytest.fixture(scope="module")
def made(where, tmp_path_factory):
    """Results of the tiny scale from folders that are written when they are asked for."""
    return written(where, tmp_path_factory.mktemp("made"), METRICS, wordings=0.5)


def written(where, root, metrics, *, wordings=None):
    known, base = {}, where.base

    def opened(spec):
        key = spec.key(base)
        if key not in known:
            split = spec.recipe(base).split
            own = ("split.", "train.epochs", "train.seeds")
            settings = {**spec.study, **spec.settings}
            settings = {key: value for key, value in settings.items() if not key.startswith(own)}
            if spec.parent and spec.reads != PRETRAINED:
                settings["mitigate.remove.scores"] = "parent"
            planted = 2 if split.planted or split.planted_share else 0
            n = len(known)
            held_out = {name: [level + 0.001 * (7 * n % 5)] * 3 for name, level in metrics.items()}
            how = {"planted": planted, "metrics": metrics, "validation": held_out}
            how["wordings"] = wordings and wordings + 0.01 * n
            path = build(root / key, *as_settings(settings), noise=n, **how)
            add_contents(path, n)
            known[key] = Measured(path)
        return known[key]

    return Results(opened, 0.95)


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding_turns_runs_into_effects_and_a_figure(made, where, name):
    finding = FINDINGS[name]()
    effects = finding.effects(where, made)
    assert [one.primary for one in effects] == [True] + [False] * (len(effects) - 1)
    for one in effects:
        assert one.low is None or one.low <= one.estimate <= one.high
        assert one.seeds == 3
    assert len({one.measure for one in effects}) == len(effects)
    document = judge(finding, where, made)
    assert json.loads(json.dumps(document))["holds"] == effects[0].holds
    panels = document["panels"]
    assert any(line["x"] for panel in panels for line in panel["series"])
    assert finding_figure(document).svg("finding", "narrow").startswith("<svg")
    assert [panel["published"] for panel in panels] == sorted(panel["published"] for panel in panels)


COCO = Context(
    replace(SCALES["coco", "published"], noise=(0.0, 0.15, 0.3), removed={0.2: (0.2, 0.4)}, lengths=(30, 100)),
    base_recipe("published", "coco", settings=["data.path=/somewhere"]),
)


@pytest.mark.parametrize("name", [name for name in FINDINGS if name not in COCO.scale.without])
def test_every_finding_on_coco_is_judged_by_what_it_measures(tmp_path, name):
    """COCO has neither labels nor image variants, and one wording is scored."""
    runs = FINDINGS[name]().runs(COCO)
    recipes = [spec.recipe(COCO.base) for spec in runs.values()]
    variants = [one.mitigate.image_variants for one in recipes]
    assert not any(one.active and one.source == "given" for one in variants)
    assert not any(one.data.flaws.vague for one in recipes)
    metric = COCO.scale.utility
    primary = FINDINGS[name]().effects(COCO, written(COCO, tmp_path, {metric: METRICS[metric]}))[0]
    assert primary.primary
    assert primary.low is not None


def test_a_tradeoff_is_the_best_mitigation_each_at_its_best_length(made, where):
    """The verdict by hand: validation pairs choose the length; both changes must hold, and one mitigation suffices."""
    effects = FINDINGS["tradeoff"]().effects(where, made)
    lengths, metric = where.scale.lengths, where.scale.utility

    def at_best(run):
        runs = [tradeoff.at_length(where, run, epochs) for epochs in lengths]
        held_out = [np.mean(made.validation(one, metric)) for one in runs]
        one = runs[held_out.index(max(held_out))]
        return np.array(made.values(one, "clipmem_wordings")), np.array(made.values(one, metric))

    plain = at_best(RunSpec())
    found = []
    for run in tradeoff.mitigations(where).values():
        own = at_best(run)
        falls, rises = ((a - b) / abs(a.mean()) for a, b in zip(plain, own, strict=True))
        found.append(min(falls.mean(), -rises.mean()))
    assert effects[0].estimate == pytest.approx(max(found))
    assert effects[0].confidence == pytest.approx(1 - 0.05 / len(found))


def test_one_of_several_must_hold_and_both_of_a_pair():
    results = Results(lambda spec: None, 0.95)
    memory, utility = [0.2, 0.21, 0.19, 0.2], [0.5, 0.51, 0.49, 0.5]
    better = dominance(results, (memory, utility), ([0.1, 0.11, 0.1, 0.1], [0.6, 0.62, 0.6, 0.6]), "a")
    dear = dominance(results, (memory, utility), ([0.1, 0.11, 0.1, 0.1], [0.49, 0.49, 0.47, 0.49]), "b")
    assert (better.holds, dear.holds) == ("yes", "no")
    assert strongest("one", [better, dear]).holds == "yes"
    assert strongest("one", [dear, dear]).holds == "no"
    spared = dominance(
        results, (memory, utility), ([0.1, 0.11, 0.1, 0.1], [0.499, 0.508, 0.489, 0.498]), "c", margin=0.02
    )
    assert spared.holds == "yes"
    after, before = relative([0.1, 0.1], [0.2, 0.2, 0.9], -1)
    assert np.allclose(np.subtract(after, before), 0.5)  # over the seeds that both have
    assert len(after) == len(before) == 2
    assert results.divided(4).level(primary=True) == pytest.approx(1 - 0.05 / 4)


def test_each_look_has_its_share_of_the_error(made, where):
    """Judged twice, the primary effect alone has the level of two."""
    finding = FINDINGS["model-size"]()
    first, twice = (
        judge(finding, Context(replace(where.scale, looks={"model-size": looks}), where.base), made) for looks in (1, 2)
    )
    assert (first["looks"], twice["looks"]) == (1, 2)
    assert [one["confidence"] for one in twice["effects"]] == [
        pytest.approx(0.975),
        *[0.95] * (len(first["effects"]) - 1),
    ]
    assert twice["effects"][0]["low"] < first["effects"][0]["low"]
    assert twice["effects"][1:] == first["effects"][1:]


def test_pairs_are_counted_by_others_of_the_same_name(made, where):
    [run] = made.each(redundancy.counted(where))
    first = dict(run.run.pairs.select("uid", "captions").iter_rows())
    shared = run.uids("shared")
    for role, sets in redundancy.others(run).items():
        assert set().union(*sets.values()) == run.uids(role)
        for count, uids in sets.items():
            for uid in uids:
                same = sum(first[other][0].casefold() == first[uid][0].casefold() for other in shared)
                assert min(same, redundancy.MOST) == count


def test_swapped_captions_are_compared_with_the_same_pairs(made, where):
    effects = {one.measure: one for one in FINDINGS["planted"]().effects(where, made)}
    [run], [base] = made.each(RunSpec({"split.planted": 6})), made.each(RunSpec())
    wrong = {"c00", "c01"}
    assert run.planted == wrong
    shift = np.subtract(run.memorization(wrong), base.memorization(wrong)).mean()
    name = "pairs with swapped captions: CLIPMem minus that with their own captions"
    assert effects[name].estimate == pytest.approx(shift)
