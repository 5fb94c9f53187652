"""The small computations behind the figures, against slow loops."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.random import generator
from clipmem.report.figures import embed
from clipmem.report.run import TrainingLog, read_run
from clipmem.report.sections.scores import density, roles_figure
from clipmem.report.sections.study import curves_figure, smooth
from tests.unit.report.run_folder import Built


def test_density_is_the_kernel_sum_up_to_the_grid() -> None:
    values = generator(1, "density").normal(0.3, 0.5, 80)
    grid = np.linspace(-3, 4, 1401)
    quartiles = np.quantile(values, [0.25, 0.75])
    width = 0.9 * min(values.std(ddof=1), (quartiles[1] - quartiles[0]) / 1.34) * 80**-0.2
    slow = [
        sum(math.exp(-0.5 * ((x - v) / width) ** 2) for v in values) / (80 * width * math.sqrt(2 * math.pi))
        for x in grid
    ]
    np.testing.assert_allclose(density(values, grid), slow, atol=2e-3)
    assert density(values, grid).sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3, 0.3]])
def test_density_of_what_has_no_spread_is_zero(values: list[float]) -> None:
    assert not density(np.array(values), np.linspace(0, 1, 11)).any()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.integers(1, 40))
def test_smooth_is_the_mean_of_the_neighbors(values: list[float], window: int) -> None:
    half = min(window, len(values)) // 2
    slow = []
    for i in range(len(values)):
        near = values[max(0, i - half) : i + half + 1]
        slow.append(sum(near) / len(near))
    np.testing.assert_allclose(smooth(np.array(values), window), slow, atol=1e-9)


def test_ids_of_two_figures_do_not_meet() -> None:
    file = '<?xml?><svg viewBox="0 0 1 1"><path id="a"/><use xlink:href="#a"/><g clip-path="url(#a)"/></svg>'
    svg = embed(file, "name", 'a "title" <b>')
    assert 'id="name-a"' in svg
    assert 'href="#name-a"' in svg
    assert "url(#name-a)" in svg
    assert "<title>a &quot;title&quot; &lt;b&gt;</title>" in svg
    assert "xlink" not in svg


def test_a_large_role_is_not_drawn_mark_by_mark(two_seeds: Built) -> None:
    run, lengths = read_run(two_seeds.folder), list[int]()
    for n in (1_000, 50_000):
        run.tables["scores"] = two_seeds.scores.sample(n, with_replacement=True, seed=1)
        lengths.append(len(roles_figure(run).svg("roles", "wide")))
    few, many = lengths
    assert many < 1.5 * few


def test_both_models_are_drawn_and_told_apart_by_line_style() -> None:
    step = np.arange(50.0)
    logs = [TrainingLog(side, 0, step, step // 10, 3.0 - step / 20) for side in ("f", "g")]
    svg = curves_figure(logs).svg("curves", "wide")
    assert len(re.findall(r"stroke-dasharray", svg)) >= 2
    assert "f, the target" in svg
    assert "g, the reference" in svg
