"""Given models: how they are addressed, what a roles file may hold, who is the bank, the exact text of every error."""

import contextlib
import json
import sys

import hypothesis
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import nn

from clipmem.base.errors import InputError, shorten
from clipmem.base.hashing import file_sha256
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.data.user_tables import read_roles
from clipmem.models import given, openclip, passes
from clipmem.models.names import parse
from clipmem.models.protocol import DualEncoder
from clipmem.scoring.protocols import protocol_of
from tests.tiny import tiny_recipe

UIDS = [f"{k:032x}" for k in range(10)]
KNOWN = frozenset(UIDS)
ROLES = ["shared", "shared", "candidate", "candidate", "candidate", "independent", "external", "external", "external"]
MODELS = ("protocol=given", "given.target=['a']", "given.reference=['b']")


def refused(call, *arguments, **named):
    with pytest.raises(InputError) as error:
        call(*arguments, **named)
    return str(error.value)


# ---- the recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["protocol=given"],
            "recipe: [given] target is empty; set target = ['FOLDER'] to a model that trained on "
            "the candidates, and reference = ['FOLDER'] to one that did not.",
        ),
        (
            ["protocol=given", "given.target=['a', 'b']", "given.reference=['c']"],
            "recipe: [given] has 2 targets and 1 references; each "
            "target is compared with the reference at its position: give the same number of both.",
        ),
        (
            ["given.target=['a']"],
            "recipe: protocol = 'four-way' trains its own models; omit [given], or run protocol = 'given'.",
        ),
        (
            [*MODELS, "split.external=1"],
            "recipe: [split] external: got 1, expected 2 or more. `clipmem init` prints every key with its meaning.",
        ),
    ],
)
def test_recipes_that_are_refused(settings, message):
    assert refused(load_recipe, "", settings) == message


def test_what_given_does_not_use_is_not_checked():
    unused = ["split.candidate=3", "split.planted=1", "train.objective='supervised'"]
    recipe = load_recipe("", [*MODELS, *unused])
    assert recipe.given.target == ("a",)
    assert load_recipe(dump_recipe(recipe)) == recipe
    with pytest.raises(InputError, match="candidate = 3 and independent = 200 differ"):
        load_recipe("", unused)


# ---- finding and loading


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "micro"
    openclip.create("clipmem-micro", seed=1).save(folder)
    return folder


def test_a_model_is_found_by_a_relative_path_and_known_by_content(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    found = given.find("micro")
    assert found[:3] == ("micro", saved, saved / "open_clip_model.safetensors")
    assert found.address == str(saved)
    assert given.find(found.address)[1:] == given.find("local-dir:micro")[1:] == found[1:]
    assert given.content(found) == {
        name: file_sha256(saved / name) for name in ("open_clip_config.json", "open_clip_model.safetensors")
    }
    loaded = given.load(found)
    assert isinstance(loaded, DualEncoder)
    assert loaded.image_size == 32


EXPECTED = (
    "a folder of open_clip, NAME/TAG, NAME@CHECKPOINT, local-dir:FOLDER, hf-hub:OWNER/NAME, or transformers:FOLDER"
)
PATH = "Check the path: relative paths start at the working directory."


@pytest.mark.parametrize(
    ("name", "got", "hint"),
    [
        ("no/where", "no such folder", PATH),
        ("", "no such folder", PATH),
        ("local-dir:", "no such folder", PATH),
        ("local-dir:no/where", "no such folder", PATH),
        ("transformers:weights.pt", "a file", PATH),
        ("weights.pt", "a file", "Add its architecture: NAME@weights.pt."),
        ("ViT-B-23/openai", "no such folder", "Did you mean 'ViT-B-32' or 'ViT-S-32'?"),
        (
            "RN101-quickgelu/opnai",
            "no pretrained tag 'opnai' of RN101-quickgelu, and no such folder",
            "Did you mean 'openai'?",
        ),
        ("ViT-M-16/x", "no pretrained tag 'x' of ViT-M-16, and no such folder", "ViT-M-16 has no pretrained tags."),
        (
            "RN101",
            "an architecture without weights",
            "Write RN101@CHECKPOINT or RN101/TAG, TAG being one of openai, yfcc15m.",
        ),
        ("clipmem-micro", "an architecture without weights", "Write clipmem-micro@CHECKPOINT."),
        (
            "clipmem-micr@weights.pt",
            "no architecture 'clipmem-micr'",
            "Did you mean 'clipmem-micro' or 'clipmem-tiny'?",
        ),
        ("clipmem-micro@none.pt", "no such file after @", PATH),
        ("clipmem-micro@", "no such file after @", PATH),
        ("clipmem-micro@run", "a folder after @", f"{PATH} Name one of its files: epoch_1.pt, epoch_2.pt."),
        ("x" * 300, "no such folder", PATH),
        ("~nobody-of-that-name/x", "an invalid path (Could not determine home directory.)", PATH),
        ("hf-hub:laion", "a repository 'laion'", "Copy the name from the repository's page."),
        ("hf-hub:a/b/c", "a repository 'a/b/c'", "Copy the name from the repository's page."),
    ],
)
def test_addresses_of_nothing(tmp_path, monkeypatch, name, got, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for file in ("weights.pt", "run/epoch_1.pt", "run/epoch_2.pt", "run/log.txt"):
        (tmp_path / file).touch()
    assert refused(given.find, name) == f"model {shorten(name)}: got {got}, expected {EXPECTED}. {hint}"


def test_a_path_with_nul_is_no_path():
    assert "got an invalid path (" in refused(given.find, "a\0b")  # the rest is Python's, which has changed it


def test_an_architecture_s_tag_comes_before_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    openclip.create("clipmem-micro", seed=1).save(tmp_path / "ViT-B-32-quickgelu" / "openai")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "of the hub repository" in refused(given.find, "ViT-B-32-quickgelu/openai")
    assert given.find("./ViT-B-32-quickgelu/openai").parsed.kind == "folder"


def test_a_folder_whose_path_has_an_at(tmp_path, monkeypatch):
    folder = tmp_path / "clipmem-micro@home"
    openclip.create("clipmem-micro", seed=1).save(folder)
    found = given.find(str(folder))
    assert found.address == f"local-dir:{folder}"
    assert given.find(found.address).folder == folder


@pytest.mark.parametrize(
    "text",
    ["hf-hub:a/b", "ViT-B-32-quickgelu/openai", "RN50/openai"],
)
def test_an_address_is_read_back_from_what_it_says(text):
    parsed = parse(text)
    assert str(parsed) == text
    assert parse(str(parsed)) == parsed


@settings(max_examples=200)
@hypothesis.given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_input_error(text):
    with contextlib.suppress(InputError):
        assert parse(str(parse(text))) == parse(text)
    for prefix in ("local-dir:", "hf-hub:", "transformers:", "RN50/", "RN50@", "clipmem-micro@"):
        with contextlib.suppress(InputError):
            parse(prefix + text)


def test_folders_that_lack_something(tmp_path):
    (tmp_path / "open_clip_config.json").touch()
    assert refused(given.find, str(tmp_path)).endswith(
        f": got a folder with no weights, expected {EXPECTED}. "
        "Put the weights next to the config, as open_clip_model.safetensors for example."
    )
    (tmp_path / "config.json").touch()
    assert refused(given.find, str(tmp_path)).endswith(f"If transformers saved it, use 'transformers:{tmp_path}'.")
    assert refused(given.find, f"transformers:{tmp_path}").endswith(
        ": got a folder with no *.safetensors, expected config.json and safetensors weights. "
        "Save the model with save_pretrained."
    )
    (tmp_path / "config.json").unlink()
    assert "a folder with no config.json and no *.safetensors" in refused(given.find, f"transformers:{tmp_path}")
    (tmp_path / "open_clip_config.json").unlink()
    (tmp_path / "epoch_1.pt").touch()
    assert refused(given.find, str(tmp_path)).endswith(
        f": got a folder with no open_clip_config.json, expected {EXPECTED}. "
        f"Add the architecture: NAME@{tmp_path}/epoch_1.pt."
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    encoder = openclip.create("clipmem-micro", seed=1)
    assert any(bool(mask.isinf().any()) for mask in encoder.module.buffers())  # a mask may hold it
    name, weight = list(encoder.module.named_parameters())[3]
    weight.data.view(-1)[0] = value
    encoder.save(tmp_path / "broken")
    with pytest.raises(InputError) as error:
        given.load(given.find(str(tmp_path / "broken")))
    assert error.value.got == f"NaN or infinity in 1 of its weights, the first {name}"


def test_a_broken_model_is_not_called_one_of_ours(saved, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes((saved / "open_clip_config.json").read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"broken")
    message = refused(given.load, given.find(str(tmp_path)))
    assert message.startswith(f"checkpoint {tmp_path}/open_clip_model.safetensors: got a file that does not load (")
    assert message.endswith("), expected safetensors. Check that the file is complete.")
    (tmp_path / "open_clip_model.safetensors").write_bytes((saved / "open_clip_model.safetensors").read_bytes())
    config = json.loads((saved / "open_clip_config.json").read_text())
    config["model_cfg"]["no_such_argument"] = 1
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    message = refused(given.load, given.find(str(tmp_path)))
    assert "no_such_argument" in message
    assert message.endswith(", expected a model saved by clipmem or open_clip. Check that its files are complete.")
    for text in ("{", "[]", '{"model_cfg": {"embed_dim": 3}}', '{"model_cfg": {"vision_cfg": 1, "text_cfg": {}}}'):
        (tmp_path / "open_clip_config.json").write_text(text)
        assert "got files that do not load (open_clip_config.json: " in refused(given.load, given.find(str(tmp_path)))


def test_without_the_extra_a_model_of_transformers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).touch()
    assert refused(given.load, given.find(f"transformers:{tmp_path}")) == (
        "transformers models: got no package transformers, expected the extra hf. "
        "Install it in the checkout: pip install '.[hf]'."
    )
    assert set(given.content(given.find(f"transformers:{tmp_path}"))) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


# ---- any encoder


class Plain:
    """A dual encoder of no library: two linear maps, and captions told apart by their letters."""

    image_size, resize_mode, interpolation = 4, "shortest", "bicubic"
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.5, 0.5)

    def __init__(self):
        self.module = nn.ModuleDict({"image": nn.Linear(48, 5), "text": nn.EmbeddingBag(256, 5, padding_idx=0)})

    def tokenize(self, captions):
        rows = [torch.tensor(list(text.encode())) for text in captions]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def encode_image(self, pixels):
        return self.module["image"](pixels.flatten(1))

    def encode_text(self, tokens):
        return self.module["text"](tokens)

    def logit_scale(self):
        return torch.tensor(1.0)

    def save(self, folder):
        return []


def test_any_dual_encoder_is_embedded():
    encoder, rng = Plain(), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    captions = [["one"], ["two", "three"], ["four"]]
    inputs = passes.Inputs(pixels, np.arange(3), captions, UIDS[:3])
    found = passes.embed(encoder, inputs, EmbedSection(batch_size=2), TrainSection())
    for k in range(3):
        values = (pixels[k].transpose(2, 0, 1) / 255 - np.array(Plain.mean)[:, None, None]) / 0.5
        expected = encoder.encode_image(torch.tensor(values, dtype=torch.float32)[None])[0]
        torch.testing.assert_close(found.image[k, 0], expected, atol=1e-5, rtol=1e-5)
    assert found.text_pair.tolist() == [0, 1, 1, 2]
    torch.testing.assert_close(found.text[2], encoder.encode_text(encoder.tokenize(["three"]))[0])


# ---- the roles file


def write(path, **columns):
    table = pl.DataFrame({"uid": UIDS[: len(ROLES)], "role": ROLES} | columns)
    table = table.select(name for name in table.columns if table[name].dtype != pl.Null)
    table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["roles.parquet", "roles.csv"])
def test_roles_are_read(tmp_path, name):
    source = [None] * 9
    source[2], source[3] = UIDS[3], UIDS[2]
    wrong = [k in (2, 3) for k in range(9)]
    table = read_roles(write(tmp_path / name, planted=wrong, captions_from=source, other=["x"] * 9), KNOWN)
    assert table.columns == ["uid", "role", "planted", "captions_from"]
    assert table["uid"].to_list() == UIDS[:9]  # the tenth pair takes no part
    assert table["role"].to_list() == ROLES
    assert table["planted"].to_list() == wrong
    assert table["captions_from"].to_list() == [*UIDS[:2], UIDS[3], UIDS[2], *UIDS[4:9]]
    plain = read_roles(write(tmp_path / name), KNOWN)
    assert plain["planted"].to_list() == [False] * 9
    assert plain["captions_from"].to_list() == UIDS[:9]


WRONG = {
    "unknown role": ({"role": ["shared", "candidates", *ROLES[2:]]}, ", row 2", "'candidates'"),
    "no role": ({"role": [None, *ROLES[1:]]}, ", row 1", "None"),
    "unknown uid": ({"uid": ["x1", *UIDS[1:9]]}, ", row 1", "unknown uid 'x1' (1 of 9 rows)"),
    "no uid": ({"uid": [*UIDS[:8], None]}, ", row 9", "no uid (1 of 9 rows)"),
    "uid twice": ({"uid": [*UIDS[:8], UIDS[0]]}, "", f"uid '{UIDS[0]}' in 2 rows"),
    "no external": (
        {"role": [*ROLES[:6], "external", "shared", "shared"]}, "",
        "shared 4, candidate 3, independent 1, external 1",
    ),
    "no candidate": (
        {"role": ["shared"] * 6 + ["external"] * 3}, "", "shared 6, candidate 0, independent 0, external 3",
    ),
    "captions of nobody": ({"captions_from": ["x9", *UIDS[1:9]]}, "", "captions_from 'x9'"),
    "planted is no truth": ({"planted": ["true", "perhaps", *["false"] * 7]}, ", row 2", "planted 'perhaps'"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["roles.parquet", "roles.csv"])
@pytest.mark.parametrize("case", list(WRONG))
def test_roles_that_are_refused(tmp_path, case, name):
    columns, where, got = WRONG[case]
    path = write(tmp_path / name, **columns)
    with pytest.raises(InputError) as error:
        read_roles(path, KNOWN)
    assert (error.value.what, error.value.got) == (f"[given] roles, {path}{where}", got)
    assert error.value.hint


def test_a_roles_file_that_does_not_read(tmp_path):
    path = tmp_path / "roles.parquet"
    for got in ("no such file", "an unreadable file (", "the columns uid"):
        with pytest.raises(InputError) as error:
            read_roles(path, KNOWN)
        assert error.value.what == f"[given] roles, {path}"
        assert error.value.got.startswith(got)
        if got == "no such file":
            path.write_text("uid")
        else:
            pl.DataFrame({"uid": UIDS}).write_parquet(path)


# ---- the protocol


PAIRS = pl.DataFrame({"uid": UIDS, "captions": [["a"]] * 10})


def test_without_roles_a_bank_of_whole_groups_is_drawn():
    groups = ["alike", *map(str, range(1, 9)), "alike"]
    drawn = [
        protocol_of(tiny_recipe(*MODELS, "split.external=4", f"split.seed={seed}")).split(PAIRS, groups)
        for seed in range(8)
    ]
    for table in drawn:
        assert table["role"].value_counts().sort("role").rows() == [("candidate", 6), ("external", 4)]
        assert table.filter(pl.col("group") == "alike")["role"].n_unique() == 1
        assert table["uid"].to_list() == table["captions_from"].to_list() == UIDS
        assert not table["planted"].any()
    assert len({tuple(table["role"]) for table in drawn}) > 1
    assert drawn[3].equals(protocol_of(tiny_recipe(*MODELS, "split.external=4", "split.seed=3")).split(PAIRS, groups))


def test_the_bank_must_leave_candidates():
    protocol = protocol_of(tiny_recipe(*MODELS, "split.external=10"))
    assert refused(protocol.check_pairs, PAIRS) == (
        "[split] external: got 10 of 10 pairs in the data, expected at most 9: the others are the candidates. "
        "Reduce the bank, for example with --set split.external=N."
    )
    protocol_of(tiny_recipe(*MODELS, "split.external=9", "split.shared=1000")).check_pairs(PAIRS)


def test_roles_are_checked_against_the_data_before_anything_is_made(tmp_path):
    path = write(tmp_path / "roles.csv")
    protocol = protocol_of(tiny_recipe(*MODELS, f"given.roles={path}"))
    protocol.check_pairs(PAIRS)
    assert protocol.split(PAIRS, UIDS)["role"].to_list() == ROLES
    assert "unknown uid" in refused(protocol.check_pairs, PAIRS.head(8))
