"""What must be true of every verdict and of every Pareto front."""

from hypothesis import given
from hypothesis import strategies as st

from clipmem.functional import Claim, verdict
from clipmem.report.frontier import front

number = st.floats(-10, 10, allow_nan=False)
size = st.floats(0, 5, allow_nan=False)
side = st.sampled_from(["above", "below"])
RANK = {"no": 0, "inconclusive": 1, "yes": 2}


@st.composite
def intervals(draw):
    return tuple(sorted((draw(number), draw(number))))


@given(intervals(), side, size)
def test_the_mirror_has_the_same_answer(ends, which, claimed):
    low, high = ends
    other = "below" if which == "above" else "above"
    assert verdict(low, high, Claim(which, claimed)) == verdict(-high, -low, Claim(other, claimed))


@given(intervals(), intervals(), side, size)
def test_a_wider_interval_never_decides_otherwise(narrow, wide, which, claimed):
    low, high = min(narrow[0], wide[0]), max(narrow[1], wide[1])
    first, second = verdict(*narrow, Claim(which, claimed)), verdict(low, high, Claim(which, claimed))
    # it may lose a decision, and never turns it round: but a `yes` short of the size may become the `no` of that size
    if second == "yes":
        assert first == "yes"
    if second == "no" and high < claimed and which == "above":
        assert narrow[1] < claimed


@given(intervals(), st.floats(0, 5), size)
def test_more_effect_is_never_worse_for_a_side(ends, more, claimed):
    low, high = ends
    before = verdict(low, high, Claim("above", claimed))
    assert RANK[verdict(low + more, high + more, Claim("above", claimed))] >= RANK[before]


@given(intervals(), side)
def test_both_sides_are_never_shown_at_once(ends, which):
    answers = {verdict(*ends, Claim("above")), verdict(*ends, Claim("below"))}
    assert answers in ({"yes", "no"}, {"inconclusive"}, {"no"}, {"inconclusive", "no"})


@given(intervals(), st.floats(0.01, 5))
def test_about_zero_is_yes_only_inside_the_margin(ends, margin):
    low, high = ends
    answer = verdict(low, high, Claim("zero", margin))
    inside = all(abs(end) < margin for end in ends)
    outside = low >= margin or high <= -margin
    assert answer == ("yes" if inside else "no" if outside else "inconclusive")


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(places):
    points = {str(k): (float(x), float(y)) for k, (x, y) in enumerate(places)}
    found = front(points)

    def beaten(own):  # from the definition, by looking at all
        return any(
            (x <= own[0] and y > own[1]) or (x < own[0] and y >= own[1]) for x, y in places
        )  # fmt: skip

    assert sorted(found) == sorted(name for name, place in points.items() if not beaten(place))
    assert [points[name][0] for name in found] == sorted(points[name][0] for name in found)
