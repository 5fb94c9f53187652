"""The exact messages of the measures' errors, and their edge cases."""

import inspect
import re

import numpy as np
import pytest
import torch

from clipmem.base.errors import InputError
from clipmem.functional import (
    ClassMemState,
    LogHistogram,
    UnitMemState,
    benjamini_hochberg,
    bootstrap_models_mean,
    class_correct,
    class_probability,
    cmc,
    cmc_modalities,
    dejavu,
    get_measure,
    holm,
    in_out_means,
    jackknife_models,
    label_memorization,
    layer_distances,
    layermem,
    nearest,
    nonnegative,
    paired_test,
    predict_objects,
    recall_area,
    sslmem,
    text_view_distance,
    unitmem,
    view_distance,
)
from clipmem.functional.measures import MEASURES

raw = inspect.unwrap  # a user runs without the shape checks of the test hook
one, two = torch.ones(1, 1), torch.ones(2, 1)
pairs = torch.full((2, 2, 1), 0.5)
yes = torch.ones(2, 3, dtype=torch.bool)


def state(*blocks, **settings):
    made = UnitMemState(1, **settings)
    for row, block in blocks:
        made.update(torch.tensor(block)[:, None], row)
    return made


CASES = [
    (
        lambda: cmc_modalities(pairs[:1], pairs[:1]),
        "pair: got 1 modalities, expected at least two. CMC compares modalities: stack, for example, the image and the"
        " caption means.",
    ),
    (
        lambda: cmc_modalities(pairs, pairs[:, :0]),
        "held_out: got no pair, expected at least one pair. Hold out some pairs as the bank.",
    ),
    (
        lambda: cmc_modalities(2.5 * pairs, pairs),
        "pair: got 4 of 4 rows not finite or longer than 1, the first in modality 0, row 0, expected means of unit"
        " vectors. Make them with clipmem.functional.pair_means.",
    ),
    (
        lambda: raw(cmc_modalities)(pairs, torch.ones(3, 2, 1)),
        "held_out: got 3 modalities of width 1, expected 2 modalities of width 1, as for the pairs. Take pairs and"
        " held-out pairs from the same model.",
    ),
    (
        lambda: cmc(one, one, one, one, member=torch.tensor([0])),
        "held_out: got one pair, which is itself to be scored, expected another held-out pair. Hold out more pairs: a"
        " pair is never compared with itself.",
    ),
    (
        lambda: cmc(one, one, two, two, member=torch.tensor([2])),
        "member: got 2 for pair 0, expected -1, or a row from 0 to 1. Give each pair its row among the held-out pairs,"
        " or -1.",
    ),
    (
        lambda: raw(cmc)(one, two, one, one),
        "text: got shape (2, 1), expected shape (1, 1). Take images and captions from the same model, one row a pair.",
    ),
    (
        lambda: view_distance(one, torch.ones(1, 0, 1)),
        "views: got no view, expected at least one view an input. Draw 5 views an input.",
    ),
    (
        lambda: raw(view_distance)(one, torch.ones(1, 1, 2)),
        "views: got width 2, expected width 1, that of the clean embeddings. Take both from the same model.",
    ),
    (
        lambda: text_view_distance(two, one, torch.tensor([1])),
        "text_pair: got 1 of 2 pairs without a caption, the first is pair 0, expected at least one caption row a pair."
        " Leave those pairs out, or add their captions.",
    ),
    (
        lambda: sslmem(torch.ones(0, 2), two.T),
        "target: got no seed, expected at least one seed. Score at least one model.",
    ),
    (
        lambda: class_probability(two, torch.tensor([0, 1])),
        "label: got 1 in row 1, expected classes from 0 to 0. Number the classes as the model's outputs.",
    ),
    (
        lambda: class_correct(two / 0, torch.tensor([0, 0])),
        "logits: got 2 of 2 rows not finite, the first is row 0, expected finite numbers. Look at the model and the"
        " input behind that row.",
    ),
    (
        lambda: label_memorization(np.array([[0.5], [1.5]]), np.array([[True], [False]])),
        "confidence: got 1 of 2 values outside [0, 1], the first at index [1, 0], expected probabilities. Make them"
        " with clipmem.functional.class_probability.",
    ),
    (
        lambda: nonnegative(torch.tensor([-1.0, 1.0]), "check"),
        "activations: got 1 of 2 values below 0, expected activations that are not negative. Choose nonnegative='relu'"
        " or 'abs' and say so with the result.",
    ),
    (
        lambda: state((0, [1.0, float("nan")])),
        "activations: got 1 of 2 values not finite, expected finite numbers. Look at the model and its input.",
    ),
    (
        lambda: state((0, [1.0, 2.0]), (1, [1.0])),
        "activations: got row 1 a second time, expected each row once. Give each block the number of its first row,"
        " and each block once.",
    ),
    (
        lambda: state((0, [1.0])).result(),
        "activations: got 1 points, expected at least two. UnitMem compares a point with the others: give more.",
    ),
    (
        lambda: state((0, [1.0, 2.0])).result("median"),
        "rest: got 'median' of a state that keeps none, expected 'mean'. Make the state with median='auto'.",
    ),
    (
        lambda: state((0, [1.0, 2.0]), median="exact", hold_bytes=7),
        "median='exact': got 8 bytes of activations, expected at most 7. Use median='auto' or 'sketch', or raise"
        " hold_bytes.",
    ),
    (
        lambda: state((0, [1.0])).update(torch.ones(1, 2), 5),
        "activations: got 2 units, expected 1. Use one state a layer.",
    ),
    (
        lambda: state().merge(UnitMemState(1, median="auto")),
        "states: got (units, nonnegative, median, hold_bytes) (1, 'check', 'auto', 268435456), expected (1, 'check',"
        " 'no', 268435456). Make both states with the same arguments.",
    ),
    (
        lambda: ClassMemState(2, 1).update(one, torch.tensor([2])),
        "label: got 2 in row 0, expected classes from 0 to 1. Number the classes from 0.",
    ),
    (
        lambda: LogHistogram(1).order_statistic(0),
        "rank: got 0, expected a whole number from 0 to -1. Add values first.",
    ),
    (
        lambda: layer_distances([]),
        "layers: got no layer, expected at least one. Check which layers were selected.",
    ),
    (
        lambda: layermem(torch.zeros(1, 2), torch.ones(1, 2), normalise=True),
        "layer 0: got the same score 1 for all 2 inputs, expected scores that differ. Use the raw scores: there is no"
        " range to divide by.",
    ),
    (lambda: nearest(one, two, 3), "k: got 3, expected a whole number from 1 to 2. Ask for fewer neighbours."),
    (
        lambda: predict_objects(torch.tensor([[2]]), yes),
        "neighbours: got 2 at index [0, 0], expected rows from 0 to 1. Find them among the public images that the"
        " objects belong to.",
    ),
    (
        lambda: dejavu(~yes, yes, yes),
        "true objects: got no object in 2 pairs, expected at least one pair with an object. Check the labels: pairs"
        " without an object do not count.",
    ),
    (
        lambda: dejavu(yes, yes, yes, ranking="distance"),
        "distance: got none, expected one a pair. Give the distance of each caption's nearest image.",
    ),
    (
        lambda: dejavu(yes, yes, yes, fractions=(0.0,)),
        "fractions: got 0.0, expected numbers above 0, at most 1. Use 0.01.",
    ),
    (
        lambda: recall_area(np.array([0.0, 2.0])),
        "recall: got values from 0 to 2, expected values from 0 to 1. Give shares of the objects.",
    ),
    (
        lambda: raw(in_out_means)(np.ones((2, 1)), np.ones((1, 1), dtype=bool)),
        "member: got shape (1, 1), expected shape (2, 1), that of the values. Say for each model and pair whether the"
        " model trained on it.",
    ),
    (
        lambda: in_out_means(np.ones((0, 1)), np.ones((0, 1), dtype=bool)),
        "values: got no model, expected at least one model. Train and score some models first.",
    ),
    (
        lambda: bootstrap_models_mean(np.ones((2, 1)), np.ones((2, 1), dtype=bool), seed=0),
        "member: got no pair of 1 with models on both sides, expected at least one. Train more models on random parts"
        " of the data.",
    ),
    (
        lambda: holm(np.array([0.5, 1.5])),
        "p-values: got 1.5 at index 1, expected numbers from 0 to 1. Give the p-values of the tests, not their"
        " statistics.",
    ),
    (
        lambda: paired_test(np.array([]), np.array([])),
        "a: got no value, expected at least one. Check which pairs were selected.",
    ),
    (
        lambda: get_measure("x"),
        "measure: got 'x', expected one of clipmem, cmc, sslmem_image, sslmem_text, confidence. Choose one of the"
        " measures.",
    ),
]


@pytest.mark.parametrize(("act", "message"), CASES, ids=[message.split(",")[0] for _, message in CASES])
def test_message(act, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        act()


def test_the_measures_are_declared_in_full():
    assert sorted(MEASURES) == ["clipmem", "cmc", "confidence", "sslmem_image", "sslmem_text"]
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.higher_is == "more memorized"
        assert measure.needs
        assert measure.equation
        assert measure.source
        low, high = measure.model_range
        assert measure.range == (low - high, high - low)


def test_nonnegative_choices():
    x = torch.tensor([[-2.0], [1.0]])
    assert unitmem(x, nonnegative="relu").value.tolist() == [1.0]
    assert unitmem(x, nonnegative="abs").argmax.tolist() == [0]
    assert unitmem(x, nonnegative="abs").nonnegative == "abs"


def test_auto_turns_into_the_sketch_whatever_the_blocks_and_says_so():
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    limit = x.numel() * 4
    fits = UnitMemState(3, median="auto", hold_bytes=limit)
    over = [UnitMemState(3, median="auto", hold_bytes=limit - 1) for _ in range(3)]
    for row in range(50):
        fits.update(x[row : row + 1], row)
        over[row % 2].update(x[row : row + 1], row)
    over[2].update(x, 0)
    over[0].merge(over[1])
    assert fits.result("median").rest == "median"
    first, second = over[0].result("median"), over[2].result("median")
    assert first.rest == second.rest == "median (sketch)"
    assert first.relative_error == 0.01
    assert torch.equal(first.value, second.value)


def test_memory_does_not_grow_with_points():
    mean, sketch = UnitMemState(4), UnitMemState(4, median="sketch")
    before = mean.nbytes, sketch.nbytes
    for row in range(0, 400, 40):
        for made in (mean, sketch):
            made.update(torch.rand(40, 4, generator=torch.Generator().manual_seed(row)), row)
    assert (mean.nbytes, sketch.nbytes) == before
    assert before[0] == 24 * 4
    assert before[1] < 24 * 4 + 4 * 4800


def test_what_is_undefined_is_nan_or_none():
    values, member = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[True, True], [False, True]])
    sure = jackknife_models(values, member)
    assert np.isnan(sure.stderr).all()  # one model a side says nothing of its spread
    constant = jackknife_models(np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([[True], [True], [False], [False]]))
    assert (constant.stderr[0], constant.low[0], constant.high[0]) == (0.0, 1.0, 1.0)
    assert holm(np.array([np.nan, 0.25])).tolist()[1] == 0.25
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()
    same = paired_test(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert (same.difference, same.t, same.wilcoxon_p, same.effect) == (0.0, None, 1.0, None)
    assert nearest(torch.ones(0, 1), two, 2).rows.shape == (0, 2)


def test_only_the_unit_that_owns_a_pair_rises():
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    before = unitmem(x)
    x[7, 2] += 10
    after = unitmem(x)
    changed = (after.value - before.value).abs() > 1e-12
    assert changed.tolist() == [False, False, True, False, False]
    assert float(after.value[2]) > float(before.value[2])
    assert int(after.argmax[2]) == 7


def test_a_tied_top_class_shares_the_point():
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    expected = torch.tensor([1.0, 1 / 2, 1 / 3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(class_correct(logits, torch.tensor([0, 0, 0, 0])), expected, rtol=0, atol=1e-15)


def test_equally_frequent_objects_are_ordered_by_their_first_neighbour():
    # Both are in two of the four; object 1 is in the nearest one, object 0 in the farthest one.
    objects = torch.tensor([[False, True], [True, True], [False, False], [True, False]])
    assert predict_objects(torch.tensor([[0, 1, 2, 3]]), objects, top=1).tolist() == [[False, True]]
    # The last appearance must not decide.
    objects = torch.tensor([[False, True], [True, False], [True, False], [False, True]])
    assert predict_objects(torch.tensor([[0, 1, 2, 3]]), objects, top=1).tolist() == [[False, True]]
    assert predict_objects(torch.tensor([[1, 0, 3, 2]]), objects, top=1).tolist() == [[True, False]]
