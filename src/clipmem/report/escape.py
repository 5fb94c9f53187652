r"""Make hostile text visible: captions, keys and credits come from the internet and may hold anything.

`visible` is the one door through which such text goes before it is shown, on the page and in the terminal.
It does not escape HTML or terminal markup: the template engine (autoescape) and `rich.text.Text` (which
reads no markup) do that. Do not use it to store text: it is not reversible where the text itself holds a
written-out escape such as `\u202e`.
"""

_IMAGES = 0x2400  # the block "Control Pictures": U+2400 + c is the image of the C0 control c
# What reorders, hides or breaks the text around it: bidi marks, embeddings, overrides and isolates, line and
# paragraph separators, the byte-order mark, annotation controls, and the two code points that are never
# characters.
_HIDDEN = (
    *(0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x2070),
    *range(0xFFF9, 0xFFFC),
)
_VISIBLE: dict[int, str] = {
    **{code: chr(_IMAGES + code) for code in range(0x20)},
    0x7F: "\u2421",
    **{code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *_HIDDEN)},
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
}
CAPTION_LIMIT = 240


def visible(text: str, limit: int | None = None) -> str:
    """Replace what a reader cannot see, or what would act on the screen, by a visible form."""
    if limit is not None and len(text) > limit:
        return f"{text[:limit].translate(_VISIBLE)}… ({len(text):,} characters)"
    return text.translate(_VISIBLE)
