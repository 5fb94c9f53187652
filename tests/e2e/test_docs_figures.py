"""Figures of the docs: colors of the report, letters that can be read, and the scheme of the page around them."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipmem.report.figures import light_colors
from tests.e2e.browser import needs_browser, started

IMAGES = Path(__file__).parents[2] / "docs" / "images"
FIGURES = sorted(IMAGES.glob("*.svg"))
TINTS = {"#fbe9dd", "#dcebf6", "#dff1ec"}  # of the boxes of concept-roles
MEDIA = re.compile(r"<style>@media \(prefers-color-scheme:dark\)\{(.*?)\}</style>")


@pytest.mark.parametrize("file", FIGURES, ids=lambda file: file.stem)
def test_a_figure_has_the_colors_of_the_report_in_both_schemes(file):
    text = file.read_text(encoding="utf-8")
    [rules] = MEDIA.findall(text)
    body = MEDIA.sub("", text)
    colors = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", body))
    assert {color for _, color in colors} == set(re.findall(r"#[0-9a-f]{6}\b", body))
    dark = {(part, light): color for part, light, color in re.findall(r'"(\w+): (#\w+)"\]\{\w+:(#\w+)!', rules)}
    assert colors == set(dark)
    names = {color: name for name, color in light_colors().items() if name != "--mat"}
    assert {color for _, color in colors} <= set(names) | TINTS
    assert all(color == light_colors(1)[names[light]] for (_, light), color in dark.items() if light in names)


@pytest.mark.parametrize("file", FIGURES, ids=lambda file: file.stem)
def test_letters_are_at_least_8_pt_at_the_width_of_a_page(file):
    text = file.read_text(encoding="utf-8")
    [width] = re.findall(r'viewBox="0 0 (\d+) ', text)
    sizes = [float(size) for size in re.findall(r"font(?:-size)?[:=] ?\"?([\d.]+)", text)]
    assert sizes
    assert min(sizes) * 688 / int(width) * 0.75 >= 8  # 688 CSS pixels at a window of 1440


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_figure_follows_the_scheme_of_its_page_not_that_of_the_system(tmp_path, system):
    page = tmp_path / "page.html"
    image = f"<img src='{(IMAGES / 'curate.svg').as_uri()}' width='720'>"
    with started() as session:
        for scheme, ground in (("light", "#ffffff"), ("dark", "#000000")):
            page.write_text(
                f"<html style='color-scheme: {scheme}'><body style='background: {ground}'>{image}</body></html>"
            )
            view = session.open(page.as_uri(), color_scheme=system)
            shot = np.asarray(Image.open(io.BytesIO(view.locator("img").screenshot())).convert("L"), dtype=float)
            ground_level = 255.0 if scheme == "light" else 0.0
            assert np.median(shot) == ground_level  # transparent
            assert abs(shot - ground_level).max() > 200  # letters against it
        assert not session.errors
        assert not session.outside
