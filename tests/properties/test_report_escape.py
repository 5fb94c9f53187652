"""Whatever a caption holds, the page stays the page that we wrote."""

import unicodedata
from html.parser import HTMLParser

from hypothesis import example, given
from hypothesis import strategies as st

from clipmem.report.formats import CAPTION_LIMIT, visible
from clipmem.report.templating import environment

HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=())),  # lone surrogates and controls too
    st.text("<>&\"'=/ \x00\x1b\u202e`{}%-!#;abscript[]\\"),
)


class Page(HTMLParser):
    """Collects the tags with their attributes, and the text of the captions."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.alt: list[str] = []
        self.captions: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.alt += [value or "" for name, value in attrs if name == "alt"]
        if tag == "bdi":
            self._inside = True
            self.captions.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "bdi":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.captions[-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment appeared: {data!r}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration appeared: {decl!r}")


def card_page(caption: str) -> Page:
    # the raw caption, as if nobody had made it visible before
    card = {
        **dict.fromkeys(("uid", "key", "label"), caption),
        "rank": 1,
        "clipmem": 0.5,
        "learned": None,
        "stderr": None,
        "low": None,
        "high": None,
        "planted": True,
        "image": "data:image/png;base64,AA==",
        "trained_with": [caption],
        "captions": [caption],
        "strip": {"zero": 0.0, "dot": 1.0, "left": 0.5, "width": 1.0},
    }
    page = Page()
    page.feed(environment().get_template("study/card.html").module.show(card, caption, None))  # pyright: ignore
    page.close()
    return page


PLAIN = card_page("a plain caption").tags


@given(HOSTILE)
@example("<script>alert(1)</script>")
@example('"><img src=x onerror=alert(1)>')
@example("</bdi></li><!-- ")
@example("{{ 7 * 7 }}{% raw %}")
@example("&lt;b&gt; &amp;amp;")
def test_a_caption_adds_no_element_and_no_attribute_and_comes_back_as_it_was_shown(caption: str) -> None:
    page = card_page(caption)
    assert page.tags == PLAIN
    assert page.captions == [visible(caption, CAPTION_LIMIT)] * 2
    assert page.alt == [visible(caption, CAPTION_LIMIT)]


@given(HOSTILE)
def test_what_is_visible_encodes_and_holds_no_control(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not any(unicodedata.bidirectional(c) in bidi or c in "\u200e\u200f\u061c" for c in shown)


@given(HOSTILE)
def test_showing_twice_changes_nothing_more(text: str) -> None:
    assert visible(visible(text)) == visible(text)


@given(HOSTILE, HOSTILE)
def test_it_works_character_by_character(a: str, b: str) -> None:
    assert visible(a + b) == visible(a) + visible(b)


@given(HOSTILE, st.integers(0, 40))
def test_the_limit_cuts_and_says_how_long_the_text_was(text: str, limit: int) -> None:
    shown = visible(text, limit)
    if len(text) <= limit:
        assert shown == visible(text)
    else:
        assert shown == visible(text[:limit]) + f"… ({len(text)} characters)"
