r"""Make hostile text visible: captions, keys and credits come from the internet and may hold anything.

All such text passes through `visible` before it is shown on a page or in the terminal. HTML and terminal markup are
escaped elsewhere, by the template engine (autoescape) and by `rich.text.Text` (which reads no markup). Do not use it to
store text: it is not reversible where the text holds a written-out escape such as `\u202e`.
"""

_CONTROL_PICTURES = 0x2400  # the Unicode block: U+2400 + c depicts the C0 control c
# what reorders, hides or breaks the text around it: bidi marks, embeddings, overrides and isolates, line and paragraph
# separators, the byte-order mark, annotation controls, and the two code points that are never characters
_HIDDEN = (
    *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x2070),
    *range(0xFFF9, 0xFFFC),
)
_VISIBLE: dict[int, str] = {
    **{code: chr(_CONTROL_PICTURES + code) for code in range(0x20)},
    0x7F: "\u2421",
    **{code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *_HIDDEN)},
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
}
CAPTION_LIMIT = 240


def visible(text: str, limit: int | None = None) -> str:
    """Replace invisible characters and control characters with a visible form."""
    if limit is not None and len(text) > limit:
        return f"{text[:limit].translate(_VISIBLE)}… ({len(text):,} characters)"
    return text.translate(_VISIBLE)
