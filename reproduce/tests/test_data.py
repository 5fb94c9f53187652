"""Builders of data that are not shipped, on small packages made here."""

import gzip
import json
import struct
import sys
import tarfile
from collections import Counter

import numpy as np
import polars as pl
import pytest
from PIL import Image

from clipmem import InputError
from clipmem.base.sections import DataSection
from clipmem.data.sources import open_source
from clipmem_reproduce.data import photographs, table
from clipmem_reproduce.data.manual import manual
from clipmem_reproduce.data.packages import Package, debian, fetched, license_of, npm
from clipmem_reproduce.data.table import Pair, border_of, rows, squared, unique, write


def noise(size, seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(100, 130, (size[1], size[0], len(mode)), dtype=np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255
    return Image.fromarray(pixels)


def save(image, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def put(text, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def package(folder, name="made-up 1.0"):
    return Package(folder, name, "GPL-2")


def text(value):
    return struct.pack(">I", len(value.encode("utf-16-be"))) + value.encode("utf-16-be")


def sky_record(number, kind, numbers):
    """A record as Stellarium reads it; one of its texts is a null string."""
    order = ("NGC", "IC", "M", "C", "B", "SH2", "VDB", "RCW", "LDN", "LBN", "CR", "MEL", "PGC", "UGC")
    return b"".join(
        (
            struct.pack(">I4dI", number, 1.0, 2.0, 3.0, 4.0, kind) + text("SA(s)b"),
            struct.pack(">2di6d", *[0.0] * 2, 7, *[0.0] * 6),
            struct.pack(">14I", *[numbers.get(name, 0) for name in order]),
            text("Ced 1")
            + struct.pack(">2I", 5, 6)
            + b"\xff\xff\xff\xff"
            + text("x") * 6
            + struct.pack(">5I", *[9] * 5),
        )
    )


CATALOG = b"".join(
    (
        text("3.20") + text("standard"),
        sky_record(255, 0, {"NGC": 224, "M": 31, "PGC": 2557, "UGC": 454}),
        sky_record(300, 7, {"NGC": 6205, "M": 13}),
        sky_record(301, 17, {"SH2": 155}),
    )
)


def test_the_catalog_of_the_sky_is_read_to_its_end():
    objects = photographs.catalog(CATALOG)
    assert [(item.number, item.kind) for item in objects] == [
        (255, "galaxy"), (300, "globular star cluster"), (301, "HII region"),
    ]  # fmt: skip
    assert objects[0].numbers == {"NGC": 224, "M": 31, "PGC": 2557, "UGC": 454}
    names = {("NGC", 224): ["Andromeda Galaxy", "Great Spiral"], ("M", 31): ["andromeda galaxy"]}
    captions = photographs.sky_captions(objects[0], names)
    assert captions == ("andromeda galaxy", "Great Spiral", "galaxy Messier 31", "NGC 224", "UGC 454", "PGC 2557")
    assert photographs.sky_captions(objects[2], {}) == ("HII region Sharpless 2-155",)


def test_the_sky_has_names_and_credits_and_leaves_out_parts_of_mosaics(tmp_path):
    folder = tmp_path / photographs.SKY
    for k, name in enumerate(("m31", "n6205-dss", "sh2-155", "lmc_01", "n9999")):
        save(noise((32, 32), k), folder / f"{name}.png")
    (folder / "catalog.dat").write_bytes(gzip.compress(CATALOG))
    put('NGC  224             _("Andromeda Galaxy") # WK\n# NGC  6205  _("No")\n', folder / "names.dat")
    credit = '{"imageCredits": {"Short" : "A. Bee", "infoUrl": "x"}, "imageUrl" : "m31.png", "at": [-.5]},'
    put(credit, folder / "textures.json")
    pairs = {pair.path: pair for pair in photographs.sky(package(tmp_path))}
    assert {path for path, pair in pairs.items() if pair.reason} == {"sky/lmc_01", "sky/n9999"}
    galaxy = pairs["sky/m31"]
    assert (galaxy.label, galaxy.group, galaxy.credit) == ("galaxy", "sky: 255", "A. Bee")
    assert galaxy.captions[0] == "Andromeda Galaxy"
    assert pairs["sky/n6205-dss"].captions == ("globular star cluster Messier 13", "NGC 6205")
    assert pairs["sky/n6205-dss"].credit == "Stellarium"
    (folder / "catalog.dat").write_bytes(gzip.compress(CATALOG[:-3]))
    with pytest.raises(InputError, match="not readable"):
        list(photographs.sky(package(tmp_path)))


def test_foods_have_english_names_first_and_those_of_other_languages_last(tmp_path):
    description = (
        "A. Tiyoh; E. Marrow (green, long), Gourd; Kan. Southe kayi; [Place of collection: Goa]; Common. Fruit."
    )
    captions = photographs.food_names("Cucumber", "Cucumis sativus", description)
    assert captions == ("Cucumber", "Marrow (green, long)", "Gourd", "Cucumis sativus", "Fruit", "Tiyoh", "Southe kayi")
    many = "; ".join(f"A. Name{chr(97 + k)}" for k in range(20))
    assert len(photographs.food_names("Cucumber", "", many)) == photographs.MOST
    for k, code in enumerate(("D001", "D002", "M001")):
        save(noise((30, 20), k), tmp_path / f"pictures/assets/{code}.jpeg")
    put("code,group,entries,tags\nD,Other Vegetables,2,veg\n", tmp_path / "groups/index.csv")
    table_of = (
        'code,name,scie,desc\n"D001","Brinjal 1","Solanum melongena","A. Bengena"\nD002,Brinjal 2,Solanum Melongena,'
    )
    put(table_of, tmp_path / "descriptions/index.csv")
    folders = [package(tmp_path / name) for name in photographs.FOOD]
    pairs = list(photographs.food(*folders))
    assert [pair.reason for pair in pairs] == ["", "", "no names in several languages"]
    assert {pair.group for pair in pairs[:2]} == {"food: solanum melongena"}
    assert pairs[0].label == "Other Vegetables"
    (tmp_path / "groups/index.csv").unlink()
    with pytest.raises(InputError, match=r"index\.csv"):
        list(photographs.food(*folders))


def test_stamps_are_photographs_with_sentences(tmp_path):
    folder = tmp_path / photographs.STAMPS
    drawing = Image.new("RGBA", (80, 80), "red")
    for k, name in enumerate(("animals/birds/crow", "animals/birds/crow_mirror", "food/cartoon/pie", "food/silent")):
        save(noise((80, 80), k, "RGBA"), folder / f"{name}.png")
    save(noise((60, 80), 7, "RGBA").resize((30, 40)), folder / "food/small.png")
    save(drawing, folder / "food/drawing.png")
    save(noise((80, 80), 8, "RGBA"), folder / "food/empty.png")
    put("", folder / "food/empty.txt")
    put("<svg/>", folder / "food/vector.svg")
    put("not an image", folder / "food/broken.png")
    put("A crow.\nde.utf8=Eine Krähe.\nel.utf8=Ένα κοράκι.\nen_GB.utf8=A crow.\n", folder / "animals/birds/crow.txt")
    pairs = {pair.path.removeprefix("stamps/"): pair for pair in photographs.stamps(package(tmp_path))}
    by_folder = "a drawing, by its folder or format"
    assert {path: pair.reason for path, pair in pairs.items()} == {
        "animals/birds/crow": "",
        "animals/birds/crow_mirror": "the mirror image of another",
        "food/cartoon/pie": by_folder,
        "food/vector": by_folder,
        "food/silent": "no sentence",
        "food/empty": "no sentence",
        "food/small": "smaller than 64 pixels",
        "food/drawing": "a drawing, by its texture",
        "food/broken": "not readable",
    }
    crow = pairs["animals/birds/crow"]
    assert (crow.captions, crow.label, crow.group) == (("A crow.", "Eine Krähe."), "birds", "stamps: a crow.")


def test_texture_tells_photographs_from_drawings():
    assert photographs.texture(Image.new("RGBA", (80, 80), "red")) == 0
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 255  # edges, no surface
    assert photographs.texture(Image.fromarray(stripes)) == 0
    assert photographs.texture(noise((80, 80))) > 0.8
    assert photographs.texture(Image.new("RGBA", (8, 8))) == 0  # transparent


def test_alt_texts_are_captions_as_they_are(tmp_path):
    pages = tmp_path / "usr/share/gimp/3.0/help/en"
    save(noise((20, 20)), pages / "images/filters/a.png")
    save(noise((20, 20), 1), pages / "images/note.png")
    put("<svg/>", pages / "images/icon.svg")
    put(
        '<p><img src="images/filters/a.png" alt="Before &amp;\n after"></p><img src="images/gone.png" alt="x">',
        pages / "a.html",
    )
    tags = '<img alt="Example" src="images/filters/a.png"/><img src="images/note.png" /><img src="images/icon.svg"/>'
    put(tags, pages / "b.html")
    pairs = {pair.path: pair for pair in manual(package(tmp_path))}
    assert pairs["images/filters/a.png"].captions == ("Before & after", "Example")
    assert pairs["images/filters/a.png"].label == "filters"
    assert {path: pair.reason for path, pair in pairs.items() if pair.reason} == {
        "images/gone.png": "not in the package", "images/note.png": "no alt text", "images/icon.svg": "a vector icon",
    }  # fmt: skip
    with pytest.raises(InputError, match=r"no pages.*gimp-help-en"):
        list(manual(package(tmp_path / "usr")))


def test_captions_are_unique_in_the_order_of_their_first_occurrence():
    assert unique(["B", "a", "A", "", "b", " c  d "], 10) == ("B", "a", "c d")
    assert unique(["B", "a", "c"], 2) == ("B", "a")
    assert unique([], 2) == ()


def test_images_become_squares():
    wide = Image.new("RGB", (300, 100), (250, 250, 250))
    wide.paste((9, 9, 9), (100, 20, 200, 80))
    square = squared(wide)
    assert square.size == (256, 256)
    assert square.getpixel((5, 5)) == square.getpixel((128, 20)) == (250, 250, 250)  # continued
    assert squared(noise((300, 100))).size == (256, 256)  # a border of nearly one color
    filled = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8))
    assert squared(filled).size == (100, 100)  # cropped
    halves = Image.new("RGB", (40, 20), "white")
    halves.paste("black", (20, 0, 40, 20))
    assert border_of(np.asarray(halves)) is None
    cut = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    cut.paste((10, 200, 10, 255), (10, 10, 20, 40))
    square = squared(cut)
    assert square.size == (30, 30)
    assert (square.getpixel((15, 15)), square.getpixel((0, 0))) == ((10, 200, 10), (255, 255, 255))


def test_blank_broken_and_identical_images_are_left_out_and_counted(tmp_path):
    files = {
        "a": save(noise((20, 20)), tmp_path / "a.png"),
        "b": save(noise((20, 20)), tmp_path / "b.png"),
        "c": save(Image.new("RGB", (20, 20), "white"), tmp_path / "c.png"),
        "d": tmp_path / "d.png",
    }
    put("not an image", files["d"])
    pairs = [Pair(package(tmp_path), path, file=file, captions=("x",)) for path, file in files.items()]
    pairs.append(Pair(package(tmp_path), "e", "no sentence"))
    tally = Counter()
    assert [row["image"]["path"] for row in rows(pairs, tally)] == ["a.webp"]
    source = "made-up 1.0"
    assert tally == {
        (source, ""): 1, (source, "identical to another image"): 1, (source, "blank"): 1, (source, "not readable"): 1,
        (source, "no sentence"): 1,
    }  # fmt: skip


def test_the_table_is_read_by_clipmem_with_label_and_group(tmp_path):
    pairs = [
        Pair(
            package(tmp_path),
            f"{k}",
            "",
            save(noise((20, 20), k), tmp_path / f"{k}.png"),
            ("one", "two"),
            "kind",
            "g",
            "me",
        )
        for k in range(3)
    ]
    out = tmp_path / "out.parquet"
    words = write(out, [*pairs, Pair(package(tmp_path), "x", "no sentence")])
    assert words.splitlines() == [
        f"3 pairs in {out}",
        "made-up 1.0: 3 kept",
        "  1 left out: no sentence",
        "captions: median 2 a pair, 1 different first ones",
        "1 kinds, 1 groups",
    ]
    stored = pl.read_parquet(out)
    assert stored.select("source", "license", "credit").unique().rows() == [("made-up 1.0", "GPL-2", "me")]
    section = DataSection(path=f"{out}", label_column="label", group_column="group")
    read = open_source(section).pairs()
    assert read["captions"].to_list() == [["one", "two"]] * 3
    assert read["label"].to_list() == ["kind"] * 3


def test_the_command_writes_a_table_or_one_line(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.parquet"
    pairs = [Pair(package(tmp_path), "a", "", save(noise((20, 20)), tmp_path / "a.png"), ("one",))]
    monkeypatch.setattr(sys, "argv", ["photographs", f"{out}", "--packages", f"{tmp_path}"])
    seen = []
    table.main(lambda folder: seen.append(folder) or pairs, "about")
    assert seen == [tmp_path]
    assert out.is_file()
    assert "1 pairs" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["photographs", "out.csv"])
    with pytest.raises(SystemExit) as stop:
        table.main(lambda _: pairs, "about")
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err == "OUT.parquet: got out.csv, expected a .parquet file. Use the extension .parquet.\n"
    )


def test_an_npm_package_is_unpacked_once_and_states_its_license(tmp_path):
    put(json.dumps({"license": "MIT"}), tmp_path / "made/package/package.json")
    with tarfile.open(tmp_path / "made-up-1.0.0.tgz", "w:gz") as archive:
        archive.add(tmp_path / "made/package", "package")
    unpacked = npm("@made/up", "1.0.0", tmp_path)
    assert unpacked[1:] == ("@made/up 1.0.0", "MIT")
    (tmp_path / "made-up-1.0.0.tgz").write_bytes(b"cut off")
    assert npm("@made/up", "1.0.0", tmp_path) == unpacked
    (tmp_path / "made-up-2.0.0.tgz").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"made-up-2\.0\.0\.tgz: got not readable.*Remove the package"):
        npm("@made/up", "2.0.0", tmp_path)
    assert not (tmp_path / "made-up-2.0.0").exists()
    put("{}", unpacked.folder / "package.json")
    with pytest.raises(InputError, match="no license"):
        npm("@made/up", "1.0.0", tmp_path)


def client(folder, name, script):
    put(f"#!/bin/sh\n{script}\n", folder / name)
    (folder / name).chmod(0o755)


def test_a_debian_package_is_fetched_with_its_version_and_license(tmp_path, monkeypatch):
    tools, packages = tmp_path / "tools", tmp_path / "packages"
    client(tools, "apt-get", 'echo fetched >> "../log"; : > "$2_1.2-3_all.deb"')
    notice = "Files: *\\nCopyright: A\\nLicense: GPL-2+\\n"
    folder = '"$3/usr/share/doc/made-up'
    extract = f'mkdir -p {folder}"; printf "{notice}" > {folder}/copyright"'
    client(tools, "dpkg-deb", f'if [ "$1" = --field ]; then echo 1.2-3; else {extract}; fi')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert debian("made-up", packages)[1:] == ("made-up 1.2-3", "GPL-2+")
    assert debian("made-up", packages)[1:] == ("made-up 1.2-3", "GPL-2+")
    assert (tmp_path / "log").read_text() == "fetched\n"
    (packages / "made-up_1.3_all.deb").touch()
    with pytest.raises(InputError, match=r"2 files, expected one\. Leave one version"):
        debian("made-up", packages)
    assert license_of("no license here") == ""


def test_a_client_that_fails_or_is_not_there_is_named(tmp_path, monkeypatch):
    client(tmp_path, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InputError) as error:
        debian("made-up", tmp_path / "packages")
    assert (error.value.what, error.value.got) == ("apt-get download made-up", "E: Unable to locate package")
    assert error.value.hint.startswith("Check the network, or put made-up_*.deb into")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="npm: got not installed, expected a client that runs `npm pack"):
        npm("@made/up", "1.0.0", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    client(tmp_path, "apt-get", "true")
    with pytest.raises(InputError, match="0 files, expected one"):
        fetched(tmp_path / "packages", "a_*.deb", ["apt-get", "download", "a"])
