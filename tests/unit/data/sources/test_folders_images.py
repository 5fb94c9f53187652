"""Image folders with a table."""

import json

import pytest

from clipmem.base.errors import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from tests.tiny import encoded_image
from tests.unit.data.sources.test_csv_table import opened


def test_imagefolder_lists_what_has_no_partner(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded_image(len(name) + ord(name[2]) + ord(name[0])))
    (tmp_path / "a" / "1.txt").write_text("one\n\ntwo\n")
    (tmp_path / "b" / "1.json").write_text('{"caption": "three", "kind": "pet"}')
    (tmp_path / "b" / "1.txt").write_text("not this one")
    (tmp_path / "b" / "5.txt").write_text("nothing beside it")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "00000_stats.json").write_text("{}")
    found, problems = opened(tmp_path, label_column="kind")
    assert found == {"a/1.png": ["one", "two"], "b/1.png": ["three"]}
    assert problems == [
        ("a/2.png", "a/2.png", "no caption"),
        ("b/5.txt", "b/5.txt", "no image with the same name"),
    ]
    assert list(opened(tmp_path, split="a")[0]) == ["a/1.png"]
    with pytest.raises(InputError) as error:
        opened(tmp_path, split="c")
    assert (error.value.what, error.value.got, error.value.hint) == ("[data] split", "'c'", "Known folders: a, b.")
    # a metadata file counts instead, and tells which images belong
    (tmp_path / "a" / "metadata.csv").write_text("file_name,text\n1.png,by the table\n")
    found, problems = opened(tmp_path)
    assert found == {"a/1.png": ["by the table"]}
    assert problems == [(name, name, "image missing from the metadata") for name in ("a/2.png", "b/1.png")]


def test_json_lines_whose_first_has_no_caption(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded_image(k))
    rows = [{"file_name": f"{k}.png", **({"text": f"thing {k}"} if k else {})} for k in range(3)]
    file = tmp_path / "metadata.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = open_source(DataSection(path=str(tmp_path)))
    assert sorted(source.pairs()["captions"].to_list()) == [["thing 1"], ["thing 2"]]
    assert source.problems == [("metadata.jsonl", "0.png", "no caption")]
    file.write_text("".join(json.dumps({"file_name": row["file_name"]}) + "\n" for row in rows))
    with pytest.raises(InputError) as error:
        open_source(DataSection(path=str(tmp_path))).pairs()
    assert (error.value.what, error.value.got) == (f"{file}", "no column 'captions'")
