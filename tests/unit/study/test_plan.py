"""Needs that only the data can meet: refused before anything is written."""

import polars as pl
import pytest

import clipmem
from clipmem.base.errors import InputError
from clipmem.base.recipes import load_recipe
from clipmem.scoring.protocols import protocol_of
from clipmem.study import forecast
from clipmem.study.plan import check_needs
from tests.tiny import tiny_recipe, write_parquet


def pairs(n=120, *, captions=1, label="", variants=0):
    """A table of pairs."""
    return pl.DataFrame(
        {
            "uid": [f"{k:032x}" for k in range(n)],
            "captions": [[f"thing {k}, {time}" for time in range(captions)] for k in range(n)],
            "label": [label] * n,
            "variants": pl.Series([["x"] * variants] * n, dtype=pl.List(pl.String)),
        }
    )


def refused(recipe, table):
    with pytest.raises(InputError) as caught:
        check_needs(recipe, protocol_of(recipe), table)
    assert caught.value.hint
    return caught.value


SUPERVISED = ("train.objective=supervised", "score.alignment=sslmem-image", "embed.views=2")


@pytest.mark.parametrize("labeled", [0, 1, 119])
def test_supervised_needs_a_label_for_every_pair(labeled):
    table = pairs().with_columns(label=pl.Series([f"c{k % 3}" if k < labeled else "" for k in range(120)]))
    error = refused(tiny_recipe(*SUPERVISED), table)
    assert error.what == "[train] objective = 'supervised'"
    assert error.got.startswith(f"{120 - labeled} of 120 pairs without a label")
    assert "data.label_column" in error.hint


def test_supervised_needs_two_labels():
    assert "'cat'" in refused(tiny_recipe(*SUPERVISED), pairs(label="cat")).got
    several = pairs().with_columns(label=pl.Series([f"c{k % 2}" for k in range(120)]))
    check_needs(tiny_recipe(*SUPERVISED), protocol_of(tiny_recipe(*SUPERVISED)), several)


@pytest.mark.parametrize(("captions", "trained", "wordings"), [(1, 1, 2), (3, 3, 4), (2, 5, 6)])
def test_wordings_need_pairs_with_more_captions(captions, trained, wordings):
    settings = (f"train.captions={trained}", f"evaluate.wordings={wordings}")
    error = refused(tiny_recipe(*settings), pairs(captions=captions))
    assert error.what == "[evaluate] wordings"
    assert error.got.startswith(f"{wordings}, with at most {captions} captions")
    assert f"train.captions = {trained} " in error.expected
    recipe = tiny_recipe(f"train.captions={trained}", f"evaluate.wordings={trained}")
    check_needs(recipe, protocol_of(recipe), pairs(captions=captions))  # those that are scored anyway
    one = pairs(captions=trained).vstack(pairs(1, captions=trained + 1))
    check_needs(tiny_recipe(*settings), protocol_of(tiny_recipe(*settings)), one)


@pytest.mark.parametrize("wordings", [0, -1, 1001, 1.5, "all"])
def test_numbers_of_wordings_that_are_none(wordings):
    with pytest.raises(InputError) as caught:
        load_recipe("", [f"evaluate.wordings={wordings}"])
    assert "[evaluate] wordings" in str(caught.value)
    assert str(wordings) in str(caught.value.got)


def test_wordings_need_a_text_tower():
    settings = ("train.objective=simclr", "score.alignment=sslmem-image", "embed.views=2")
    with pytest.raises(InputError, match=r"\[evaluate\] wordings = 3"):
        tiny_recipe(*settings, "evaluate.wordings=3")
    tiny_recipe(*settings, "evaluate.wordings=1")


def test_nothing_is_written_where_labels_are_missing(tmp_path):
    data = write_parquet(tmp_path / "pairs.parquet", 130)
    with pytest.raises(InputError) as caught:
        clipmem.run(tiny_recipe(*SUPERVISED, f"data.path='{data}'"), tmp_path / "run")
    assert "130 of 130 pairs" in caught.value.got
    assert not (tmp_path / "run").exists()


def test_text_views_are_missed_before_anything_is_written():
    recipe = tiny_recipe("score.alignment=sslmem-text", "train.captions=2")
    assert refused(recipe, pairs()).got.startswith("120 pairs")
    check_needs(recipe, protocol_of(recipe), pairs(captions=2))
    # ten pairs without a second caption may all be among the ten that no role takes; eleven may not
    some = pl.concat([pairs(120, captions=2), pairs(10)])
    check_needs(recipe, protocol_of(recipe), some)
    assert refused(recipe, pl.concat([pairs(119, captions=2), pairs(11)])).got.startswith("11 pairs")


def test_mitigations_need_what_they_show():
    several = tiny_recipe("mitigate.captions.count=3")
    assert refused(several, pairs()).what == "[mitigate.captions] count"
    check_needs(several, protocol_of(several), pairs(captions=2))
    images = tiny_recipe("mitigate.image_variants.probability=0.5")
    assert refused(images, pairs()).what == "[mitigate.image_variants] source = 'given'"
    check_needs(images, protocol_of(images), pairs(variants=1))


def test_leave_one_out_needs_its_candidates():
    recipe = tiny_recipe("protocol=leave-one-out", "leave_one_out.pairs=21")
    with pytest.raises(InputError) as caught:
        protocol_of(recipe).check_pairs(pairs())
    assert (caught.value.got, caught.value.expected) == ("21 of 20 candidates", "at most 20")
    named = tiny_recipe("protocol=leave-one-out", f"leave_one_out.uids=['{'f' * 32}']")
    with pytest.raises(InputError) as caught:
        protocol_of(named).check_pairs(pairs())
    assert caught.value.got == "f" * 32


def trained(recipe):
    """Samples seen that cost as much as training and embedding 2,000 pairs."""
    samples_seen, passes = forecast.work_of(recipe, protocol_of(recipe), pairs(2000))
    return samples_seen + passes / 3
