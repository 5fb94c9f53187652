"""Flickr's dialects."""

import pytest

from clipmem.data.sources import detect
from tests.unit.data.sources.test_csv_table import opened


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Flickr8k.token.txt", ["0.jpg#0\ta cat , red", '0.jpg#1\tit\'s "red"', "1.jpg#0\ttwo"]),
        (
            "results.csv",
            ["image_name| comment_number| comment", "0.jpg| 0| a cat , red", '0.jpg| 1   it\'s "red"', "1.jpg| 0| two"],
        ),
        ("captions.txt", ["image,caption", '0.jpg,"a cat , red"', '0.jpg,it\'s "red"', "1.jpg,two"]),
        ("captions.txt", ["image,caption", "0.jpg,a cat , red", '0.jpg,"it\'s ""red"""', "1.jpg,two"]),
        ("captions.txt", ["0.jpg,a cat , red", '0.jpg,it\'s "red"', "1.jpg,two"]),
        (
            "numbered.csv",
            ["image_name,comment_number,comment", '0.jpg,0,"a cat , red"', '0.jpg,1,it\'s "red"', "1.jpg,0,two"],
        ),
    ],
)
def test_flickr_dialects(folder, name, lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    expected = {"0.jpg": ["a cat , red", 'it\'s "red"'], "1.jpg": ["two"]}
    found, problems = opened(path, source="flickr")
    assert {key: [caption.strip() for caption in captions] for key, captions in found.items()} == expected
    assert problems == []
    assert detect(str(path)).format in {"flickr", "csv"}
    found, problems = opened(path)
    assert ({key: [caption.strip() for caption in captions] for key, captions in found.items()}, problems) == (
        expected,
        [],
    )


def test_flickr_lines_that_are_broken_are_listed(folder):
    path = folder / "Flickr8k.token.txt"
    path.write_text(
        "0.jpg#0\tone\nnonsense\n1.jpg#0\t\n2.jpg.1#0\tthe name has a number\n1.jpg#1\ttwo\n0.jpg#1\tmore\n"
    )
    found, problems = opened(path)
    assert found == {"0.jpg": ["one", "more"], "1.jpg": ["two"]}
    assert problems == [
        ("Flickr8k.token.txt", "line 2", "line without an image and a caption"),
        ("Flickr8k.token.txt", "line 3", "empty caption"),
        ("Flickr8k.token.txt", "line 4", "line without an image and a caption"),
    ]
