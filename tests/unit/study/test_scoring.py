"""`clipmem.score` with embeddings in memory or on disk: the equation, blocks, order, stops in the middle, errors."""

import json

import numpy as np
import polars as pl
import pytest
import torch

import clipmem
from clipmem.base.errors import ClipmemWarning, InputError
from clipmem.base.tables import SCHEMAS
from clipmem.models.embeddings import Embeddings
from clipmem.models.layout import write_card, write_part
from clipmem.models.passes import Means
from tests.reference import loops_score as reference
from tests.unit.models.test_layout import write

N = 23


def arrays(seed, *, n=N, d=6, views=None, dtype=np.float64):
    stream = np.random.default_rng(seed)
    image = stream.normal(size=(n, d) if views is None else (n, views, d))
    return image.astype(dtype), stream.normal(size=(n, d)).astype(dtype)


def by_loop(models, bank):
    """CLIPMem of every pair from the equation."""
    scores = []
    for row in range(N):
        others = [k for k in bank if k != row]
        aligned = []
        for image, text in models:
            views = image if image.ndim == 3 else image[:, None]
            aligned.append(
                reference.alignment(
                    views[row].tolist(),
                    [text[row].tolist()],
                    [views[k].tolist() for k in others],
                    [[text[k].tolist()] for k in others],
                    weight=1.0,
                )
            )
        scores.append(aligned[0] - aligned[1])
    return np.array(scores)


def test_scores_are_those_of_the_equation_with_other_widths():
    f, g = arrays(1, d=6, views=3), arrays(2, d=9)
    table = clipmem.score(f, g, bank=[3, 1, 8])
    assert dict(table.schema) == dict(SCHEMAS["scores"])
    order = [int(uid) for uid in table["uid"]]
    assert order == sorted(range(N), key=str)
    np.testing.assert_allclose(table["clipmem"], by_loop((f, g), [1, 3, 8])[order], atol=1e-6)
    assert [uid for uid, role in table.select("uid", "role").iter_rows() if role == "external"] == ["1", "3", "8"]
    span = table.filter(role="candidate")["clipmem"]
    np.testing.assert_allclose(table["clipmem_norm"], table["clipmem"] / (span.max() - span.min()), rtol=1e-12)
    for column in ("stderr", "low", "high"):
        assert table[column].null_count() == N
    parts = table["f_positive"] - table["f_image_bank"] - table["f_text_bank"]
    parts -= table["g_positive"] - table["g_image_bank"] - table["g_text_bank"]
    np.testing.assert_allclose(table["clipmem"], parts, atol=1e-12)


def test_scores_are_centered_on_the_bank():
    f, g = arrays(1), arrays(2)
    table = clipmem.score(f, g, bank=[0, 1, 4, 6, 7, 9])
    bank = sorted(table.filter(role="external")["clipmem"])
    assert len(bank) == 6
    centered = table["clipmem"] - sum(bank[1:5]) / 4
    np.testing.assert_allclose(table["clipmem_centered"], centered, atol=1e-12)
    # what all pairs have in common does not matter: a target against itself is centered on 0
    assert clipmem.score(f, f, bank_size=5)["clipmem_centered"].to_list() == [0.0] * N


def test_several_captions_count_as_one_pair():
    image, text = arrays(1)
    more = np.concatenate([text, arrays(5)[1]])
    owner = np.concatenate([np.arange(N), np.arange(N)])
    shuffle = np.random.default_rng(0).permutation(2 * N)
    ours = clipmem.score((image, more[shuffle], owner[shuffle]), (image, text), bank=[0, 1])
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (text, arrays(5)[1])]
    positive = (image / np.linalg.norm(image, axis=1, keepdims=True) * (unit[0] + unit[1]) / 2).sum(axis=1)
    np.testing.assert_allclose(ours["f_positive"], positive[[int(uid) for uid in ours["uid"]]], atol=1e-6)


def test_numpy_torch_and_the_same_values_on_disk_score_alike(tmp_path):
    folders, halves = [], []
    for name, seed in (("f", 1), ("g", 2)):
        halves.append(write(tmp_path / name, (9, 14), seed=seed))
        folders.append(str(tmp_path / name))
    stored = clipmem.score(*folders, bank_size=5)
    uids = clipmem.score(*folders, bank_size=5, block=3)["uid"]
    assert uids.equals(stored["uid"])
    names = pl.concat([stored.filter(role="external")["uid"]]).to_list()
    all_uids = Embeddings.open(tmp_path / "f").uids.to_list()
    ours = clipmem.score(*halves, data=all_uids, bank=names)
    assert ours.equals(stored)
    tensors = [tuple(torch.from_numpy(values) for values in pair) for pair in halves]
    assert clipmem.score(*tensors, data=all_uids, bank=names).equals(stored)


@pytest.mark.filterwarnings("ignore:.*left out:clipmem.base.errors.ClipmemWarning")
@pytest.mark.parametrize("block", [1, 3, 5, 22, 23, 1000])
def test_blocks_and_order_do_not_change_a_bit(block):
    f, g = arrays(1, dtype=np.float32, views=2), arrays(2, dtype=np.float16)
    f[0][4, 1] = 0  # one view without a direction
    uids = [f"{k:032x}" for k in range(N)]
    expected = clipmem.score(f, g, uids, bank_size=7)
    assert expected.height == N - 1
    order = np.random.default_rng(block).permutation(N)
    shuffled = [tuple(values[order] for values in pair) for pair in (f, g)]
    assert clipmem.score(*shuffled, [uids[k] for k in order], bank_size=7, block=block).equals(expected)


def test_swapping_the_models_negates_and_a_model_against_itself_is_zero():
    f, g = arrays(1), arrays(2)
    ours, swapped = clipmem.score(f, g, bank_size=5), clipmem.score(g, f, bank_size=5)
    assert (ours["clipmem"] == -swapped["clipmem"]).all()
    same = clipmem.score(f, f, bank_size=5)
    assert same["clipmem"].to_list() == [0.0] * N
    assert same["clipmem_norm"].null_count() == N


def test_several_models_give_errors_over_them():
    models = [arrays(seed) for seed in range(4)]
    both = clipmem.score(models[:2], models[2:], bank=[0, 1])
    singles = [clipmem.score(models[k], models[2 + k], bank=[0, 1])["clipmem"].to_numpy() for k in range(2)]
    np.testing.assert_allclose(both["clipmem"], (singles[0] + singles[1]) / 2, atol=1e-12)
    expected = clipmem.functional.seed_interval(np.stack(singles))
    np.testing.assert_allclose(both["stderr"], expected.stderr, atol=1e-12)
    np.testing.assert_allclose(both["low"], expected.low, atol=1e-12)


def test_one_pair_against_a_bank_and_a_pair_without_a_direction():
    f, g = arrays(1), arrays(2)
    f[0][4] = 0
    g[1][9, 2] = np.nan
    with pytest.warns(ClipmemWarning, match=r"^2 records left out, the first '4': zero or non-finite embedding$"):
        table = clipmem.score(f, g, bank=[0, 1, 9])
    assert set(range(N)) - {int(uid) for uid in table["uid"]} == {4, 9}
    whole = clipmem.score(arrays(1), arrays(2), bank=[0, 1])
    both = table.join(whole, on="uid", suffix="_whole")
    np.testing.assert_array_equal(both["clipmem"], both["clipmem_whole"])
    alone = clipmem.score(*(tuple(values[:3] for values in pair) for pair in (f, g)), bank=[0, 1])
    assert alone.filter(role="candidate")["clipmem_norm"].to_list() == [None]


class Stop(BaseException):
    """A kill that a test can aim."""


class Stopper:
    """Stops at the n-th finished block."""

    def __init__(self, after):
        self.left = after

    def begin(self, stage, total=None, unit=""): ...

    def advance(self, amount, note=""):
        self.left -= 1
        if self.left == 0:
            raise Stop

    def note(self, text): ...

    def end(self, stage, seconds, *, skipped=False): ...


@pytest.mark.filterwarnings("ignore:.*left out:clipmem.base.errors.ClipmemWarning")
def test_stopped_after_any_block_and_run_again_it_ends_with_the_same_bytes(tmp_path):
    f, g = arrays(1), arrays(2)
    f[0][4] = 0
    clipmem.score(f, g, out=tmp_path / "whole.parquet", bank_size=6, block=5)
    names = ["scores.json", "scores.parquet", "scores.skipped.parquet"]
    expected = [(tmp_path / name.replace("scores", "whole")).read_bytes() for name in names]
    for after in range(1, 6):
        place = tmp_path / str(after)
        out = place / "scores.parquet"
        with pytest.raises(Stop):
            clipmem.score(f, g, out=out, bank_size=6, block=5, reporter=Stopper(after))
        assert (place / "scores.parts" / "job.json").is_file()
        assert not out.exists()
        clipmem.score(f, g, out=out, bank_size=6, block=5)
        assert sorted(file.name for file in place.iterdir()) == names
        assert [(place / name).read_bytes() for name in names] == expected


def test_a_finished_table_is_not_made_again_and_other_settings_are_refused(tmp_path):
    f, g = arrays(1), arrays(2)
    out = tmp_path / "scores.parquet"
    first = clipmem.score(f, g, out=out, bank_size=6)
    before = out.stat().st_mtime_ns
    assert clipmem.score(f, g, out=out, bank_size=6).equals(first)
    assert out.stat().st_mtime_ns == before
    assert not (tmp_path / "scores.parts").exists()
    with pytest.raises(InputError) as error:
        clipmem.score(f, g, out=out, bank_size=6, weight=0.5)
    assert error.value.what == f"{out} was made with other settings"
    assert error.value.got == "weight = 1.0 there, 0.5 now"
    with pytest.raises(InputError, match="got target.0.embeddings = .* there, .* now"):
        clipmem.score(arrays(3), g, out=out, bank_size=6)
    with pytest.raises(Stop):
        clipmem.score(f, g, out=tmp_path / "b.parquet", bank_size=6, block=5, reporter=Stopper(1))
    with pytest.raises(InputError) as error:
        clipmem.score(f, g, out=tmp_path / "b.parquet", bank_size=6, weight=0.5)
    assert error.value.what == f"{tmp_path / 'b.parts'} was started with other settings"
    assert error.value.got == "weight = 1.0 there, 0.5 now"
    for name in ("mine.parquet", "mine.json"):
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(InputError, match=rf"{name}: got an existing file, expected a new file\."):
            clipmem.score(f, g, out=tmp_path / "mine.parquet", bank_size=6)
        assert (tmp_path / name).read_bytes() == b"{}"
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (
            (arrays(1), arrays(2)),
            {},
            "--bank-size: got 200 of 23 pairs in the data, expected 2 to 22: the others are scored. Change it, "
            "or give held-out pairs with --bank.",
        ),
        (
            (arrays(1, n=1), arrays(2, n=1)),
            {},
            "--bank-size: got 200 of 1 pair in the data, expected at least 3 pairs, or --bank. Give held-out "
            "pairs with --bank.",
        ),
        (
            (arrays(1), arrays(2)),
            {"bank": [4]},
            "bank of rows: got one pair, which is scored itself, expected another pair in the bank. "
            "Enlarge the bank: a pair is never in its own bank.",
        ),
        (
            (arrays(1), arrays(2)),
            {"bank": []},
            "bank: got [], expected uids, row numbers from 0 to 22, or a mask of 23. Give the pairs that no model "
            "trained on.",
        ),
        (
            (arrays(1), arrays(2)),
            {"bank": [0, 23]},
            "bank: got [0, 23], expected uids, row numbers from 0 to 22, or a mask of 23. Give the pairs that no "
            "model trained on.",
        ),
        (
            (arrays(1), arrays(2)),
            {"bank": ["x"]},
            "--bank of uids: got unknown uid 'x' (1 of 1), expected uids of the data's "
            "pairs. Take uids from a table of scores of the same data.",
        ),
        (
            (arrays(1), arrays(2, n=22)),
            {},
            "embeddings: got arrays of 22 and 23 pairs, expected the same pairs in all. Give every model the same "
            "rows.",
        ),
        (
            (arrays(1, n=0), arrays(2, n=0)),
            {},
            "embeddings: got arrays of 0 pairs, expected the same pairs in all. Give every model the same rows.",
        ),
        (
            (arrays(1), arrays(2), ["a"] * N),
            {},
            "data: got 23 uids, 1 of them unique, for arrays of 23 pairs, expected one unique uid per pair. Omit uids "
            "to number the pairs.",
        ),
        (
            (arrays(1), arrays(2)),
            {"views": 4, "bank": [0, 1]},
            "--views: got 4 in this call, unknown in the embeddings, expected the same in all. Omit it: stored "
            "embeddings stay as they are.",
        ),
        (
            (arrays(1), [arrays(2), arrays(3)]),
            {},
            "--target and --reference: got 1 and 2, expected the same number, at least one. Give one reference "
            "for each target, in the same order.",
        ),
        (
            (arrays(1), "folder"),
            {},
            "reference: got an address among arrays, expected (image, text) or (image, text, pair) for each model. "
            "Give either arrays or addresses for all models.",
        ),
        (
            ((arrays(1)[0], arrays(1, d=5)[1]), arrays(2)),
            {},
            "target 0 embeddings: got images of shape (23, 6), captions of shape (23, 5), expected (n, d) or "
            "(n, view, d), and (n, d), or (m, d) with the pair of each row as third array. Give every pair an "
            "image and a caption embedding of one model.",
        ),
        (
            (arrays(1), arrays(2)),
            {"views": -1},
            "views: got -1, expected 0 or more. Omit it for the default.",
        ),
        (
            (arrays(1), arrays(2)),
            {"out": "scores.csv"},
            "--out: got scores.csv, expected a .parquet file. Use the extension .parquet.",
        ),
    ],
)
def test_errors(arguments, settings, message):
    if "out" in settings:
        settings = {**settings, "bank_size": 5}
    with pytest.raises(InputError) as error:
        clipmem.score(*arguments, **settings)
    assert str(error.value) == message


@pytest.mark.filterwarnings("ignore:.*left out:clipmem.base.errors.ClipmemWarning")
def test_a_pair_that_stands_twice_or_in_one_folder_only_is_listed(tmp_path):
    write(tmp_path / "f", (9, 4), seed=1)
    write(tmp_path / "g", (10,), seed=2)
    for folder in "fg":
        file = tmp_path / folder / "metadata" / "metadata_0.parquet"
        table = pl.read_parquet(file)
        table[[0, 0, *range(2, table.height)]].write_parquet(file)
    out = tmp_path / "scores.parquet"
    table = clipmem.score(str(tmp_path / "f"), str(tmp_path / "g"), out=out, bank_size=3)
    # of f's 13 rows one stands twice, and the last 3 are not in g: row 9 is row 9 in both
    assert table.height == 9
    listed = pl.read_parquet(tmp_path / "scores.skipped.parquet")
    reasons = listed["reason"].value_counts().sort("count").rows()
    assert reasons == [("duplicate pair", 1), (f"not among the embeddings in {tmp_path / 'g'}", 3)]


def embeddings(folder, *, each=1, prefix="u", **card):
    """Stored embeddings of five pairs with `each` captions, as `clipmem export embeddings` writes them."""
    rows = torch.nn.functional.normalize(torch.from_numpy(np.random.default_rng(len(folder.name)).normal(size=(5, 4))))
    table = pl.DataFrame({"uid": [f"{prefix}{k}" for k in range(5)], "captions": [["a"] * each] * 5})
    write_part(folder, 0, 1, Means(rows, rows, torch.ones(5, dtype=torch.bool)), table)
    write_card(folder, {"views": 0, "captions": None, "precision": "fp32", "parts": 1, **card})
    return str(folder)


@pytest.mark.parametrize(
    ("card", "settings", "wrong"),
    [
        ({"views": 4}, {}, ("--views", "0 in {f}, 4 in {g}")),
        ({"caption_edits": 2}, {}, ("--caption-edits", "0 in {f}, 2 in {g}")),
        ({"precision": "bf16"}, {}, ("--precision", "fp32 in {f}, bf16 in {g}")),
        ({"captions": 1, "each": 1}, {}, None),
        ({"captions": 2, "each": 2}, {}, ("--captions", "1 in {f}, 2 in {g}")),
        ({}, {"views": 4}, ("--views", "4 in this call, 0 in {f}, 0 in {g}")),
        ({}, {"captions": 1}, ("--captions", "1 in this call, None in {f}, None in {g}")),
        ({}, {"precision": "bf16"}, ("--precision", "bf16 in this call, fp32 in {f}, fp32 in {g}")),
        ({"prefix": "v"}, {}, ("embeddings", "no pair of {f} in all folders")),
    ],
)
def test_stored_embeddings_are_compared_only_if_made_alike(tmp_path, card, settings, wrong):
    f, g = embeddings(tmp_path / "f"), embeddings(tmp_path / "gg", **card)
    if wrong is None:
        assert clipmem.score(f, g, bank_size=2, **settings).height == 5
        return
    with pytest.raises(InputError) as error:
        clipmem.score(f, g, bank_size=2, **settings)
    assert (error.value.what, error.value.got) == (wrong[0], wrong[1].format(f=f, g=g))


def test_the_settings_of_stored_embeddings_are_recorded(tmp_path):
    both = {"views": 3, "precision": "bf16", "captions": 1}
    f, g = embeddings(tmp_path / "f", **both), embeddings(tmp_path / "gg", **both)
    clipmem.score(f, g, bank_size=2, views=3, out=tmp_path / "scores.parquet")
    job = json.loads((tmp_path / "scores.json").read_text())["job"]
    assert {key: job[key] for key in both} == both
    assert "device" not in job  # unknown
    clipmem.score(arrays(1), arrays(2), bank_size=2, out=tmp_path / "arrays.parquet")
    assert not {*both, "device"} & set(json.loads((tmp_path / "arrays.json").read_text())["job"])


def test_a_pair_of_the_bank_is_left_out_once_under_the_name_of_the_data(tmp_path):
    f, g = arrays(1), arrays(2)
    f[0][4] = 0
    with pytest.warns(ClipmemWarning, match=r"^1 records left out, the first '4': "):
        clipmem.score(f, g, bank=[0, 4, 5], out=tmp_path / "scores.parquet")
    listed = pl.read_parquet(tmp_path / "scores.skipped.parquet")
    assert listed.rows() == [("arrays", "4", "zero or non-finite embedding")]
