"""What all mitigations share: sections, defaults, and that each leaves f and g paired."""

import json

import polars as pl
import pytest

from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import differences, dump_recipe, load_recipe
from clipmem.data.views import pair_keys
from clipmem.mitigate import MITIGATIONS, Training, hooks_of
from clipmem.models import openclip
from clipmem.train.hooks import Hooks
from clipmem.train.loop import train
from clipmem.train.objectives import Towers
from clipmem.train.paired import training_set
from tests.unit.mitigate.test_remove import table
from tests.unit.train.test_loop import N, data_of, plan_of, section, uid

KEYS = pair_keys([uid(k) for k in range(300)])


def fit(folder, *hooks, **changes):
    train(
        Towers(openclip.create("clipmem-micro", seed=7), hooks=Hooks(hooks)),
        data_of(range(N)),
        plan_of(range(N)),
        section(**changes),
        folder,
    )
    record = json.loads((folder / "record.json").read_text())
    return record, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_section_has_a_mitigation_that_says_what_it_is():
    assert set(MITIGATIONS) == set(type(load_recipe("").mitigate).model_fields)
    assert all(MITIGATIONS[name].name == name and MITIGATIONS[name].summary for name in MITIGATIONS)


def test_nested_sections_survive_toml_and_are_told_apart():
    settings = [
        "mitigate.text_noise.std=0.15",
        "mitigate.text_noise.place=post-scaled",
        "mitigate.text_noise.start=0.5",
        "mitigate.caption_variants.kinds=['dropout', 'templates']",
        "mitigate.caption_variants.templates=['a {} \"b\"']",
        "mitigate.image_variants.crop_scale=[0.2, 0.9]",
        "mitigate.remove.count=5",
        "mitigate.remove.by=random",
    ]
    recipe = load_recipe("", settings)
    assert list(recipe.mitigate.active()) == ["text_noise", "caption_variants", "remove"]
    for comments in (False, True):
        assert load_recipe(dump_recipe(recipe, comments=comments)) == recipe
    changed = {key: now for key, _, now in differences(load_recipe(""), recipe)}
    assert changed == {
        "mitigate.text_noise.std": 0.15,
        "mitigate.text_noise.place": "post-scaled",
        "mitigate.text_noise.start": 0.5,
        "mitigate.caption_variants.kinds": ["dropout", "templates"],
        "mitigate.caption_variants.templates": ['a {} "b"'],
        "mitigate.image_variants.crop_scale": [0.2, 0.9],
        "mitigate.remove.count": 5,
        "mitigate.remove.by": "random",
    }
    assert "\n[mitigate.text_noise]\nstd = 0.15  " in dump_recipe(recipe, comments=True)


def test_nothing_is_on_by_default():
    assert not list(load_recipe("").mitigate.active())


@pytest.mark.parametrize("name", ["text_noise.std=0.1", "remove.count=3", "weight_decay.factor=2.0"])
def test_given_models_cannot_be_mitigated(name):
    settings = ["protocol=given", "given.target=['a']", "given.reference=['b']", f"mitigate.{name}"]
    if name.startswith("remove"):
        settings.append("mitigate.remove.by=random")
    with pytest.raises(InputError) as caught:
        load_recipe("", settings)
    assert str(caught.value) == (
        f"recipe: [mitigate.{name.split('.')[0]}] is set and protocol = 'given' trains nothing; omit it."
    )


def test_f_and_g_group_the_same_slots(tmp_path):
    splits = table(shared=10, candidate=4, independent=4, external=2)
    recipe = load_recipe("", ["mitigate.regroup.share=0.4", "mitigate.regroup.scores=x"])
    folder = RunFolder(tmp_path)
    uids = splits["uid"].to_list()
    folder.write("mitigate/regroup", pl.DataFrame({"uid": uids, "removal_score": [float(k) for k in range(len(uids))]}))
    plans = [training_set(splits, side, 1) for side in ("f", "g")]
    f, g = (hooks_of(Training(recipe, plan, folder, splits)) for plan in plans)
    for epoch in range(4):
        batches = plans[0].batches(5, epoch)
        laid = [[batch.tolist() for batch in hooks.batches(batches, epoch)] for hooks in (f, g)]
        assert laid[0] == laid[1] != [batch.tolist() for batch in batches]
    assert f.facts() == g.facts() == {"regroup": {"share": 0.4, "every": 1, "scores": "x"}}
