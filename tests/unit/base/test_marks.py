"""Marks: the last line of a uid counts, and no line is lost to a kill or another window."""

import json
import multiprocessing
from pathlib import Path

import pytest

from clipmem.base.errors import InputError
from clipmem.base.marks import Entry, append_marks, latest_marks, marks_file, read_marks
from clipmem.mitigate.remove import removal_list


def test_the_last_line_counts(tmp_path):
    file = tmp_path / "marks.jsonl"
    assert read_marks(file) == {}
    append_marks(file, [("a", "wrong", "a cat"), ("b", "fine", None), ("c", "unsure", None)])
    append_marks(file, [("a", "memorized", None), ("b", None, None)])
    assert {uid: mark.mark for uid, mark in read_marks(file).items()} == {"c": "unsure", "a": "memorized"}
    assert len(file.read_text().splitlines()) == 5
    assert marks_file(tmp_path) == file
    assert marks_file(tmp_path / "scores.parquet").name == "scores.marks.jsonl"


def test_suspects_of_a_run_have_its_marks(tmp_path, monkeypatch):
    (tmp_path / "run" / "curate").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "curate")
    assert marks_file(Path("suspects.parquet")) == Path("suspects.marks.jsonl")
    (tmp_path / "run" / "recipe.toml").write_text("")
    assert marks_file(Path("suspects.parquet")) == tmp_path / "run" / "marks.jsonl"
    assert marks_file(tmp_path / "run" / "other" / "suspects.parquet").name == "suspects.marks.jsonl"


def test_the_latest_mark_of_several_files_counts(tmp_path):
    lines = {"marks": [("a", "fine", 3), ("b", "wrong", 1)], "t.marks": [("a", "wrong", 2), ("b", "fine", 4)]}
    for name, given in lines.items():
        text = "".join(
            json.dumps({"uid": uid, "mark": mark, "time": f"2026-01-0{day}"}) + "\n" for uid, mark, day in given
        )
        (tmp_path / f"{name}.jsonl").write_text(text)
    for places in ([tmp_path, tmp_path / "t.parquet"], [tmp_path / "t.parquet", tmp_path]):
        assert {uid: mark.mark for uid, mark in latest_marks(*places).items()} == {"a": "fine", "b": "fine"}


def test_marks_are_not_written_through_a_link(tmp_path):
    target, file = tmp_path / "profile", tmp_path / "marks.jsonl"
    target.write_text("of the user")
    file.symlink_to(target)
    with pytest.raises(InputError):
        append_marks(file, [("$(code)", "wrong", None)])
    assert target.read_text() == "of the user"


def test_a_line_cut_short_loses_itself_only(tmp_path):
    file = tmp_path / "marks.jsonl"
    append_marks(file, [("a", "wrong", None), ("b", "fine", "x" * 5000)])
    file.write_bytes(file.read_bytes()[:-30])
    append_marks(file, [("c", "unsure", None)])
    assert {uid: mark.mark for uid, mark in read_marks(file).items()} == {"a": "wrong", "c": "unsure"}


def _append(file, name):
    for k in range(50):
        append_marks(file, [(f"{name}{k}", "fine", "note\nof two lines")])


def test_two_processes_append_at_once(tmp_path):
    file = tmp_path / "marks.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(file, name)) for name in "ab"]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    assert len(read_marks(file)) == 100


def test_unknown_marks(tmp_path):
    file = tmp_path / "marks.jsonl"
    with pytest.raises(InputError):
        append_marks(file, [("a", "great", None)])
    assert not file.exists()
    file.write_text(json.dumps({"uid": "a", "mark": "great", "time": "", "note": None}) + "\n")
    with pytest.raises(InputError) as error:
        read_marks(file)
    assert error.value.what.endswith("line 1")


def test_the_last_mark_counts(tmp_path):
    file = tmp_path / "marks.jsonl"
    rows = [("a", "fine"), ("b", "wrong"), ("a", "wrong"), ("b", None), ("c", "memorized")]
    file.write_text(
        "\n".join(json.dumps({"uid": uid, "mark": mark, "time": "t", "note": ""}) for uid, mark in rows) + "\n\n"
    )
    assert {uid: given.mark for uid, given in read_marks(file).items()} == {"a": "wrong", "c": "memorized"}
    assert removal_list(file, 1, by="marks") == ["a"]
    with pytest.raises(InputError) as caught:
        removal_list(file, 2, by="marks")
    assert caught.value.what == "removal_list count"


@pytest.mark.parametrize("line", ["[]", '{"uid": "a"}', '{"uid": 1, "mark": "fine"}', '{"uid": "a", "mark": "bad"}'])
def test_lines_that_are_no_marks(tmp_path, line):
    file = tmp_path / "marks.jsonl"
    file.write_text('{"uid": "a", "mark": "fine"}\n' + line)
    with pytest.raises(InputError) as caught:
        read_marks(file)
    assert caught.value.what.endswith("line 2")


def test_deep_lines_are_skipped_and_notes_are_text(tmp_path):
    file = tmp_path / "marks.jsonl"
    lone = '{"uid": "a", "mark": "fine", "note": "x\\ud800"}'
    file.write_text("[" * 100_000 + f"\n{lone}\n" + '{"uid": "b", "mark": "fine", "note": 5}\n')
    assert [one.note for one in read_marks(file).values()] == ["x?", "5"]


def test_the_caption_of_a_wrong_pair_is_kept_with_its_mark(tmp_path):
    file = tmp_path / "marks.jsonl"
    append_marks(
        file, [Entry("a", "wrong", "seen", "a cat"), Entry("b", "wrong"), Entry("c", "wrong", caption="ein Igel")]
    )
    append_marks(file, [Entry("c", "fine")])
    assert [(uid, *mark[:1], *mark[2:]) for uid, mark in read_marks(file).items()] == [
        ("a", "wrong", "seen", "a cat"), ("b", "wrong", None, None), ("c", "fine", None, None),
    ]  # fmt: skip
    assert "caption" not in json.loads(file.read_text().splitlines()[1])
    file.write_text(json.dumps({"uid": "a", "mark": "fine", "caption": "a dog"}) + "\n")  # of no wrong pair: ignored
    assert read_marks(file)["a"].caption is None


@pytest.mark.parametrize(
    ("mark", "caption"), [("fine", "a cat"), (None, "a cat"), ("wrong", " \n"), ("wrong", "x" * 10_001)]
)
def test_a_caption_that_cannot_be_given_is_refused(tmp_path, mark, caption):
    with pytest.raises(InputError) as error:
        append_marks(tmp_path / "marks.jsonl", [Entry("a", mark, None, caption)])
    assert error.value.what == "caption"
    assert len(error.value.got) < 200
    assert not (tmp_path / "marks.jsonl").exists()
