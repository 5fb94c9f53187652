"""The manifest of a run folder."""

import pytest

from clipmem.base import manifest
from clipmem.base.errors import InputError
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import Recipe, dump_recipe, load_recipe


def test_the_manifest_knows_and_refuses(tmp_path):
    folder = RunFolder(tmp_path)
    made = manifest.build(
        Recipe(),
        data_sha256="d" * 64,
        command="clipmem demo",
        user_set=["a.b=1"],
        execution={"device": "cpu"},
    )
    folder.write_json("manifest.json", made)
    assert manifest.read(folder) == made
    assert made["recipe_sha256"] == manifest.recipe_hash(load_recipe(dump_recipe(Recipe(), comments=True)))
    assert made["recipe_sha256"] != manifest.recipe_hash(load_recipe("", ["train.lr=0.5"]))
    assert {"torch", "open_clip_torch"} <= set(made["packages"])
    manifest.check_data(folder, "d" * 64)
    with pytest.raises(InputError) as error:
        manifest.check_data(folder, "e" * 64)
    assert f"got fingerprint {'d' * 16} there, {'e' * 16} now" in str(error.value)
    folder.write_json("manifest.json", {**made, "format": 2})
    with pytest.raises(InputError, match=r"got format 2, made by clipmem .* Update clipmem\."):
        manifest.read(folder)
