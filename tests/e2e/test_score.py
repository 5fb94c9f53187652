"""`clipmem score` and `embed`: against open_clip alone, against a study, broken images, a kill, the terminal."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import open_clip
import polars as pl
import pytest
import torch
from PIL import Image

import clipmem
from clipmem.base.errors import InputError
from clipmem.cli import main
from clipmem.models import openclip
from tests.e2e.running import clip
from tests.e2e.test_given import recipe_of
from tests.reference import loops_score as reference
from tests.tiny import encoded_image, write_parquet

N = 36
CAPTIONS = [[f"thing number {k}", f"a {'long ' * (k % 5)}caption of {k}"] for k in range(N)]


def photograph(seed):
    """An image of one of four shapes, in one of three formats."""
    size = [(70, 40), (33, 90), (64, 64), (31, 37)][seed % 4]
    image = Image.open(io.BytesIO(encoded_image(seed, size=96))).resize(size)
    stream = io.BytesIO()
    image.save(stream, ["PNG", "JPEG", "WEBP"][seed % 3], **({"lossless": True} if seed % 3 == 2 else {}))
    return stream.getvalue()


def write_pairs(path, order, *, broken=()):
    images = [b"\x89PNG\r\n\x1a\n no image %d" % k if k in broken else photograph(k) for k in order]
    pl.DataFrame({"image": images, "captions": [CAPTIONS[k] for k in order]}).write_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pairs, held-out pairs, and three models: two widths and two sizes of image."""
    folder = tmp_path_factory.mktemp("world")
    write_pairs(folder / "pairs.parquet", range(28))
    write_pairs(folder / "bank.parquet", range(28, N))
    openclip.create("clipmem-micro", seed=1).save(folder / "small")
    openclip.create("clipmem-tiny", seed=2).save(folder / "large")
    openclip.create("clipmem-micro", seed=3).save(folder / "other")
    return folder


def score(world, *more, data="pairs.parquet", bank="bank.parquet", **settings):
    models = more or ("small", "large")
    bank = bank if bank is None or isinstance(bank, list) else str(world / bank)
    return clipmem.score(*(str(world / name) for name in models), str(world / data), bank, **settings)


@pytest.fixture(scope="module")
def scored(world):
    return score(world, out=world / "scores.parquet")


def by_open_clip(folder, rows):
    """Embeddings of pairs by nothing but open_clip's public calls, one image and one caption at a time."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    image, text = {}, {}
    with torch.no_grad():
        for k in rows:
            pixels = preprocess(Image.open(io.BytesIO(photograph(k))))
            image[k] = [model.encode_image(pixels[None])[0].tolist()]
            text[k] = [model.encode_text(tokenizer([caption]))[0].tolist() for caption in CAPTIONS[k]]
    return image, text


@pytest.mark.slow
def test_it_agrees_with_a_loop_over_open_clips_public_calls(world, scored):
    """Issue: `score --views 0 --precision fp32` agrees with an independent loop to 1e-4."""
    bank = range(28, N)
    aligned = []
    for name in ("small", "large"):
        image, text = by_open_clip(world / name, range(N))
        views, captions = [image[k] for k in bank], [text[k] for k in bank]
        aligned.append([reference.alignment(image[k], text[k], views, captions, weight=1.0) for k in range(28)])
    expected = np.array(aligned[0]) - np.array(aligned[1])
    assert np.abs(expected).max() > 0.05
    uids = [clipmem.base.hashing.pair_uid(photograph(k), CAPTIONS[k]) for k in range(28)]
    found = dict(scored.select("uid", "clipmem").iter_rows())
    np.testing.assert_allclose([found[uid] for uid in uids], expected, rtol=0, atol=1e-4)
    assert scored["role"].unique().to_list() == ["candidate"]


@pytest.mark.slow
def test_it_agrees_with_a_study_of_the_same_models(world, tmp_path):
    write_parquet(tmp_path / "pairs.parquet", 30)
    data = ("data.source=parquet", f"data.path={tmp_path / 'pairs.parquet'}", "split.external=6")
    sides = [[world / "small", world / "other"], [world / "large", world / "large"]]
    run = clipmem.run(recipe_of(*sides, *data, "train.captions=1", "embed.views=2"), tmp_path / "run")
    ours = clipmem.score(
        *([str(one) for one in side] for side in sides), tmp_path / "pairs.parquet",
        tmp_path / "run" / "splits.parquet", views=2, captions=1,
    )  # fmt: skip
    assert ours.select("uid", "role", "planted").equals(run.scores.select("uid", "role", "planted"))
    assert ours.columns == run.scores.columns
    for column in ours.columns[3:]:
        absent = column in ("a_base", "learned", "clipmem_wordings")
        assert ours[column].null_count() == (ours.height if absent else 0)
        np.testing.assert_allclose(
            ours[column], run.scores[column], rtol=0, atol=1e-5 if column == "clipmem_norm" else 1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"batch_size": 5}, {"block": 3}, {"batch_size": 1}])
def test_batches_and_blocks_change_nothing_but_rounding(world, scored, settings):
    ours = score(world, **settings)
    assert ours["uid"].equals(scored["uid"])
    np.testing.assert_allclose(ours["clipmem"], scored["clipmem"], rtol=0, atol=1e-6)


def test_the_order_of_the_records_changes_nothing_but_rounding(world, scored):
    write_pairs(world / "shuffled.parquet", np.random.default_rng(0).permutation(28).tolist())
    ours = score(world, data="shuffled.parquet")
    assert ours["uid"].equals(scored["uid"])
    np.testing.assert_allclose(ours["clipmem"], scored["clipmem"], rtol=0, atol=1e-6)


def test_embeddings_on_disk_give_the_same_bits(world, scored, tmp_path):
    kept = tmp_path / "kept"
    assert score(world, embeddings=kept).equals(scored)
    files = {str(file.relative_to(kept)) for file in kept.rglob("*.npy")}
    assert files == {
        f"{place}{model}-0/{side}/{side}_0.npy"
        for place in ("", "bank/") for model in ("target", "reference") for side in ("img_emb", "text_emb")
    }  # fmt: skip
    # no model, no data: everything is in the folder
    assert main_ends(["score", "--embeddings", kept, "--out", tmp_path / "again.parquet"]) == 0
    assert pl.read_parquet(tmp_path / "again.parquet").equals(scored)
    # a second time the models are not asked
    before = {file: file.stat().st_mtime_ns for file in kept.rglob("*.npy")}
    assert score(world, embeddings=kept).equals(scored)
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("*.npy")} == before
    with pytest.raises(InputError, match=r"target-0 was made with other settings: got views = 0 there, 1 now,"):
        score(world, embeddings=kept, views=1)


@pytest.mark.slow
def test_single_views_are_stored_for_alignments_that_need_them(world, tmp_path):
    settings = {"alignment": "sslmem-image", "views": 2}
    expected = score(world, **settings)
    assert score(world, embeddings=tmp_path / "kept", **settings).equals(expected)
    again = clipmem.score([], [], embeddings=tmp_path / "kept", **settings)
    assert again.equals(expected)
    with pytest.raises(InputError, match=r"got single = True there, None now,"):
        score(world, embeddings=tmp_path / "kept", views=2)


def test_bf16_is_near(world, scored):
    ours = score(world, precision="bf16")
    assert not ours["clipmem"].equals(scored["clipmem"])
    np.testing.assert_allclose(ours["clipmem"], scored["clipmem"], rtol=0, atol=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*left out:clipmem.base.errors.ClipmemWarning")
def test_broken_images_are_listed_and_the_others_score_as_without_them(world, scored, tmp_path):
    write_pairs(tmp_path / "pairs.parquet", range(28), broken=(3, 17))
    write_pairs(tmp_path / "bank.parquet", [*range(28, N), 3], broken=(3,))
    out = tmp_path / "scores.parquet"
    ours = clipmem.score(
        str(world / "small"), str(world / "large"), tmp_path / "pairs.parquet", tmp_path / "bank.parquet", out=out
    )
    gone = {clipmem.base.hashing.pair_uid(photograph(k), CAPTIONS[k]) for k in (3, 17)}
    both = ours.join(scored, on="uid", suffix="_whole")
    assert set(scored["uid"]) - set(ours["uid"]) == gone
    assert ours.height == both.height == 26
    np.testing.assert_allclose(both["clipmem"], both["clipmem_whole"], rtol=0, atol=1e-6)
    listed = pl.read_parquet(tmp_path / "scores.skipped.parquet")
    assert listed.columns == ["source", "key", "reason"]
    assert sorted(listed.select("source", "key").iter_rows()) == [
        (str(tmp_path / "bank.parquet"), "8"),
        (str(tmp_path / "pairs.parquet"), "17"),
        (str(tmp_path / "pairs.parquet"), "3"),
    ]
    about = json.loads((tmp_path / "scores.json").read_text())
    assert (about["pairs"], about["problems"], about["bank"]["pairs"]) == (26, 3, 8)
    # through folders of embeddings the list says the same
    stored = tmp_path / "stored.parquet"
    clipmem.score(
        str(world / "small"), str(world / "large"), tmp_path / "pairs.parquet", tmp_path / "bank.parquet",
        embeddings=tmp_path / "kept", out=stored,
    )  # fmt: skip
    assert pl.read_parquet(stored).equals(ours)
    assert (
        pl.read_parquet(tmp_path / "stored.skipped.parquet").sort("source", "key").equals(listed.sort("source", "key"))
    )


def test_data_or_a_bank_of_broken_images_alone_is_an_error(world, tmp_path):
    write_pairs(tmp_path / "broken.parquet", range(3), broken=range(3))
    broken = str(tmp_path / "broken.parquet")
    models = [str(world / "small"), str(world / "large")]
    with pytest.raises(InputError) as error:
        clipmem.score(*models, str(world / "bank.parquet"), broken, out=tmp_path / "scores.parquet")
    assert re.fullmatch(
        rf"bank {broken}: got 3 pairs, none of them usable \(.*\), expected at least one\. "
        r"Check its images, or use another bank\.",
        str(error.value),
    )
    with pytest.raises(InputError) as error:
        clipmem.score(*models, broken, str(world / "bank.parquet"))
    assert re.fullmatch(
        rf"--data {broken}: got 3 pairs, none of them usable \(.*\), expected at least one\. "
        r"Check its images\.",
        str(error.value),
    )


@pytest.mark.slow
def test_a_bank_that_overlaps_the_data_leaves_each_pair_out_of_its_own(world, scored):
    own = scored["uid"].to_list()[:5]
    ours = score(world, bank=own)
    assert ours.filter(role="external")["uid"].to_list() == own
    for uid in own[:2]:
        alone = score(world, bank=[other for other in own if other != uid])
        [expected], [found] = (table.filter(uid=uid)["clipmem"].to_list() for table in (alone, ours))
        assert found == pytest.approx(expected, abs=1e-6)


def main_ends(arguments):
    """Run the command line in this process; return its exit code."""
    try:
        main([str(one) for one in arguments])
    except SystemExit as ended:
        return ended.code or 0
    return 0


def command(world, *more):
    return ["score", "--target", world / "small", "--reference", world / "large", *more]


def test_what_the_terminal_says(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    hostile = ["\x1b[31mred\x1b[0m <b>bold</b> [bold]x[/bold] \u202egnp =cmd()", "plain"]
    rows = {
        "image": [photograph(k) for k in range(12)],
        "captions": [hostile if k == 0 else CAPTIONS[k] for k in range(12)],
    }
    pl.DataFrame(rows | {"image": [b"broken", *rows["image"][1:]]}).vstack(pl.DataFrame(rows)[:1]).write_parquet(
        tmp_path / "pairs.parquet"
    )
    out = tmp_path / "scores.parquet"
    assert (
        main_ends(
            [
                *command(world, "--data", tmp_path / "pairs.parquet", "--bank", world / "bank.parquet", "--out", out),
                "--verbose",
            ]
        )
        == 0
    )
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\u202e" not in shown.out
    text = " ".join(shown.out.split())
    assert "similarity of image and captions, minus similarity to the bank; target minus reference" in text
    assert "Range -6 to 6" in text
    assert "Highest, 10 of 12 candidates" in text
    assert "12 pairs scored against 8 held-out pairs (from " in text
    assert "1 problem is listed in " in text
    assert "Check: the held-out pairs score " in text
    assert "every other difference counts as memorization here." in text
    assert f"Scores: {out}" in shown.out
    assert re.search(r"^score +\d", shown.err, flags=re.MULTILINE)
    # a finished one is shown again, and nothing is computed
    assert (
        main_ends(
            [
                *command(world, "--data", tmp_path / "pairs.parquet", "--bank", world / "bank.parquet", "--out", out),
                "--verbose",
            ]
        )
        == 0
    )
    again = capsys.readouterr()
    assert again.out == shown.out
    assert again.err == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            [],
            "--data: got no data, expected the pairs to score. ",
        ),
        (
            ["--data", "nowhere"],
            "[data] path: got 'nowhere', no such file or folder, expected ",
        ),
        (
            ["--data", "{w}/pairs.parquet"],
            "--bank-size: got 200 of 28 pairs in the data, expected 2 to 27",
        ),
        (
            ["--data", "{w}/pairs.parquet", "--bank", "{w}/none"],
            "[data] path: got '{w}/none', no such file or folder, expected ",
        ),
        (
            ["--data", "{w}/empty.parquet"],
            "[data] path: got '{w}/empty.parquet' without a usable pair ",
        ),
        (
            ["--data", "{w}/one.parquet"],
            "--bank-size: got 200 of 1 pair in the data, expected at least 3 pairs, or --bank. ",
        ),
        (
            ["--data", "{w}/pairs.parquet", "--bank", "{w}/uids.txt"],
            "--bank {w}/uids.txt: got unknown uid 'abc' (1 of 1), expected ",
        ),
        (
            ["--data", "{w}/pairs.parquet", "--reference", "{w}/other"],
            "--target and --reference: got 1 and 2, expected ",
        ),
    ],
)  # fmt: skip
def test_a_wrong_command_is_told_in_one_line(world, tmp_path, capsys, more, message):
    write_pairs(world / "one.parquet", [0])
    pl.DataFrame(
        {"image": [], "captions": []}, schema={"image": pl.Binary, "captions": pl.List(pl.String)}
    ).write_parquet(world / "empty.parquet")
    (world / "uids.txt").write_text("abc\n")
    more = [one.format(w=world) for one in more]
    assert main_ends(command(world, "--out", tmp_path / "s.parquet", *more)) == 2
    assert capsys.readouterr().err.removeprefix("clipmem: ").startswith(message.format(w=world))
    assert list(tmp_path.iterdir()) == []


def test_stored_embeddings_and_a_model_are_compared_only_if_made_alike(world, tmp_path, capsys):
    words = ["--data", world / "pairs.parquet", "--out"]
    embed = ["export", "embeddings", "--model", world / "small", *words, tmp_path / "emb", "--views", "2"]
    assert main_ends(embed) == 0
    words = ["score", "--target", tmp_path / "emb", "--reference", world / "large", "--bank-size", "5", *words]
    assert main_ends([*words, tmp_path / "a.parquet"]) == 2
    assert f"--views: got 2 in {tmp_path / 'emb'}, 0 in this call, expected" in capsys.readouterr().err
    assert main_ends([*words, tmp_path / "a.parquet", "--views", "2", "--captions", "1"]) == 2
    assert f"--captions: got 2 in {tmp_path / 'emb'}, 1 in this call, expected" in capsys.readouterr().err
    assert main_ends([*words, tmp_path / "a.parquet", "--views", "2", "--captions", "2"]) == 0


def test_a_model_that_is_not_there(world, tmp_path, capsys):
    words = command(world, "--data", world / "pairs.parquet", "--out", tmp_path / "s.parquet")
    assert main_ends([str(one).replace("/small", "/nowhere") for one in words]) == 2
    assert f"'{world / 'nowhere'}': got no such" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_pair_is_scored_against_a_bank(world, scored):
    write_pairs(world / "one.parquet", [0])
    table = score(world, data="one.parquet")
    [expected] = scored.filter(uid=table["uid"][0])["clipmem"]
    assert table["clipmem"].to_list() == pytest.approx([expected], abs=1e-6)
    assert table["clipmem_norm"].to_list() == [None]


STEP = """
import sys, clipmem
clipmem.score(*sys.argv[1:5], out=sys.argv[5], block=2, batch_size=2)
"""


@pytest.mark.parametrize(
    "after",
    [
        pytest.param("bank/target-0/markers/part-000000.json", marks=pytest.mark.slow),
        "target-0/markers/part-000000.json",
    ],
)
def test_killed_and_run_again_it_ends_with_the_same_bytes(world, tmp_path, after):
    paths = [str(world / name) for name in ("small", "large", "pairs.parquet", "bank.parquet")]
    whole, out = tmp_path / "whole.parquet", tmp_path / "scores.parquet"
    clipmem.score(*paths, out=whole, block=2, batch_size=2)
    process = subprocess.Popen([sys.executable, "-c", STEP, *paths, str(out)], start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "scores.parts" / after).is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    clipmem.score(*paths, out=out, block=2, batch_size=2)
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "scores.json", "scores.parquet", "whole.json", "whole.parquet",
    ]  # fmt: skip


def test_embed_goes_on_part_by_part_and_refuses_other_things(world, tmp_path, capsys):
    out = tmp_path / "emb"
    words = ["export", "embeddings", "--model", world / "small", "--data", world / "pairs.parquet", "--out", out]
    assert main_ends(words) == 0
    assert capsys.readouterr().out == f"embedded 28 pairs into {out}\n"
    table = pl.read_parquet(out / "metadata" / "metadata_0.parquet")
    assert table.columns == ["image_path", "caption", "uid", "captions"]
    array = np.load(out / "img_emb" / "img_emb_0.npy")
    assert array.shape == (28, 32)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-6)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    (out / "metadata" / "metadata_0.parquet").unlink()  # as after a kill
    assert main_ends(words) == 0
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    capsys.readouterr()
    assert main_ends([*words, "--views", "2"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"clipmem: {out} was made with other settings: got views = 0 there, 2 now,")
    assert shown.count("\n") == 1
    assert main_ends([*words[:-1], world]) == 2
    assert "a folder with other files and no clipmem.json" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_claims_no_folder_and_another_is_refused_by_name(world, tmp_path, capsys):
    out, broken = tmp_path / "emb", tmp_path / "broken.pt"
    torch.save({"no": "weights of this model"}, broken)

    def embed(model):
        return main_ends(["export", "embeddings", "--model", model, "--data", world / "pairs.parquet", "--out", out])

    assert embed(f"clipmem-micro@{broken}") == 2
    assert not out.exists()
    assert embed(world / "small") == 0
    capsys.readouterr()
    assert embed(world / "other") == 2
    shown = capsys.readouterr().err
    assert f"{world / 'small'} (files " in shown
    assert f"{world / 'other'} (files " in shown
    assert not re.search("[0-9a-f]{9}", shown.replace(str(tmp_path), ""))


def test_no_command_writes_among_the_images(world, tmp_path):
    table = pl.read_parquet(world / "pairs.parquet")
    (tmp_path / "images" / "0").mkdir(parents=True)
    names = [f"images/0/{k}.png" for k in range(table.height)]
    for name, image in zip(names, table["image"], strict=True):
        (tmp_path / name).write_bytes(image)
    data = tmp_path / "pairs.csv"
    pl.DataFrame({"image": names, "caption": [captions[0] for captions in table["captions"]]}).write_csv(data)
    model, inside = str(world / "small"), tmp_path / "images" / "0" / "new"
    models = ["--target", model, "--reference", world / "other", "--bank-size", "4"]
    (tmp_path / "study.toml").write_text(f"[data]\npath = '{data}'\n")
    files = sorted(tmp_path.rglob("*"))
    for command in (
        ["curate", data, "--out", inside],
        ["curate", data, "--out", tmp_path / "out", "--write", inside],
        ["export", "pairs", data, "--to", "parquet", "--out", inside],
        ["export", "embeddings", "--model", model, "--data", data, "--out", inside],
        ["score", *models, "--data", data, "--out", inside / "scores.parquet"],
        ["score", *models, "--data", data, "--out", tmp_path / "scores.parquet", "--embeddings", inside],
        ["score", "--model", model, "--data", data, "--out", inside / "scores.parquet"],
        ["run", tmp_path / "study.toml", "--out", inside],
    ):
        done = clip(*command)
        assert (done.returncode, "got a folder inside the data" in done.stderr) == (2, True), (command, done.stderr)
        assert sorted(tmp_path.rglob("*")) == files, command
