"""Credit travels with the images: what the shipped file says about its sources stands in NOTICE."""

from importlib import resources
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image_credits():
    with resources.as_file(resources.files("clipmem.data") / "assets" / "emoji.parquet") as path:
        return pl.read_parquet(path, columns=["vendor", "artist", "license", "attribution", "caption_sources"])


@pytest.fixture(scope="module")
def notice():
    return (ROOT / "NOTICE").read_text(encoding="utf-8")


def test_each_vendor_has_its_credit_and_license(image_credits, notice):
    rows = image_credits.group_by("vendor", "artist", "license", "attribution").len().rows()
    assert len(rows) == 6
    for vendor, artist, terms, attribution, count in rows:
        start = notice.index(f"\nvendor {vendor}: {count:,} images\n")
        entry = notice[start : notice.index("\n\n", start)]
        assert f"Artist:       {artist}\n" in entry
        assert f"Credit:       {attribution}\n" in entry
        assert f"License:      {terms} (" in entry
        assert "Changes made: rasterized to 64\u00d764 on white" in entry


def test_nobody_is_credited_who_is_not_in_the_file(image_credits, notice):
    named = {line.removeprefix("vendor ").split(":")[0] for line in notice.splitlines() if line.startswith("vendor ")}
    assert named == set(image_credits["vendor"])


def test_each_caption_source_is_credited(image_credits, notice):
    captions = notice[notice.index("2. CAPTIONS") : notice.index("3. THE PAGE")]
    sources = set(image_credits["caption_sources"].explode())
    missing = {
        source for source in sources if source not in captions and f"{source.split('-')[0]}-*" not in captions
    } - {source for source in sources if source.startswith("vendor-name-")}
    assert not missing
    assert "vendor-name-*" in captions


def test_license_texts_are_whole(notice):
    for part in (
        "UNICODE LICENSE V3",
        "Copyright © 2004-2024 Unicode, Inc.",
        "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.",
        "LICENSEE agrees to preserve same.",
        "Permission is hereby granted, free of charge, to any person obtaining a copy",
        "https://creativecommons.org/licenses/by/4.0/",
    ):
        assert part in notice
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
