r"""Write numbers and hostile text, the same on pages and in the terminal; tell which side of a value an interval is on.

Captions, keys and credits come from the internet and may hold anything. All such text passes through `visible` before
it is shown on a page or in the terminal. HTML and terminal markup are escaped elsewhere, by the template engine
(autoescape) and by `rich.text.Text` (which reads no markup). Do not use it to store text: it is not reversible where
the text holds a written-out escape such as `\u202e`.
"""

import math
from collections.abc import Mapping
from typing import Literal, Protocol, TypeGuard, runtime_checkable

MISSING = "n/a"
_NOISE = 1e-7  # of float32
Number = float | int  # of a JSON file: 1.0 may have been written as 1

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


@runtime_checkable
class _Interval(Protocol):
    @property
    def low(self) -> Number | None: ...
    @property
    def high(self) -> Number | None: ...


Interval = _Interval | Mapping[str, object]  # typed, or of a JSON document


def ends_of(entry: Interval) -> tuple[Number, Number] | None:
    """Return the fields `low` and `high` of an entry; None without an interval."""
    low, high = (entry.get("low"), entry.get("high")) if isinstance(entry, Mapping) else (entry.low, entry.high)
    return (low, high) if _known(low) and _known(high) else None


def _known(value: object) -> TypeGuard[Number]:
    return isinstance(value, float | int) and math.isfinite(value)


def plain(value: Number | None, digits: int = 3, entry: Interval | None = None) -> str:
    """Format a number with a fixed number of decimals; if two or more show only zeros, with two significant digits.

    Not beside an `entry` whose interval shows more than zeros: there a zero says enough.
    """
    if not _known(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        wide = entry is not None and any(float(f"{end:.{digits}f}") for end in ends_of(entry) or ())
        return f"{value:.2g}" if digits > 1 and abs(value) > _NOISE and not wide else text.removeprefix("-")
    return text


def signed(value: Number | None, digits: int = 3, entry: Interval | None = None) -> str:
    """Format a score with its sign, unless it rounds to zero."""
    text = plain(value, digits, entry)
    return text if text == MISSING or text.startswith("-") or float(text) == 0 else f"+{text}"


def interval(entry: Interval, sign: bool = False, digits: int = 3, scale: int = 1) -> str:
    """Format the interval of an entry, from its fields `low` and `high`, times `scale`."""
    ends, write = ends_of(entry), signed if sign else plain
    return f"[{', '.join(write(scale * end, digits, entry) for end in ends)}]" if ends else "no interval"


def percent(value: Number | None, digits: int = 1) -> str:
    """Format a share in [0, 1] in percent, without the percent sign."""
    return plain(None if value is None else 100 * value, digits)


def percent_interval(entry: Interval) -> str:
    """Format the interval of a share in [0, 1] in percent."""
    return interval(entry, digits=1, scale=100)


def p_value(value: Number | None) -> str:
    """Format a p-value, below 0.0001 as a bound."""
    return "< 0.0001" if _known(value) and value < 1e-4 else plain(value, 4)


def level(confidence: Number) -> str:
    """Format a confidence level in percent."""
    return f"{100 * confidence:.4g}%"


def duration(seconds: Number) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def in_bytes(number: Number) -> str:
    """Format a number of bytes with a suitable unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,.0f} bytes"


def amount(value: Number) -> str:
    """Format a time, rate or memory, without decimals from 100 on."""
    return f"{value:,.0f}" if value >= 100 else plain(value, 1)


def setting(value: object) -> str:
    """Format a recipe value on one line."""
    if isinstance(value, Mapping):
        parts = ((key, setting(entry), isinstance(entry, Mapping)) for key, entry in value.items())
        return ", ".join(f"{key} ({text})" if nested else f"{key} {text}" for key, text, nested in parts)
    if isinstance(value, list):
        return f"[{', '.join(setting(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def count(number: int, thing: str, things: str = "") -> str:
    """Format a number with its noun, in the singular or plural."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


FORMATS = (
    *(plain, signed, interval, percent, percent_interval, p_value, level),
    *(duration, in_bytes, amount, setting, count),
)


Side = Literal["above", "below", "inconclusive"]


def side_of(entry: Interval, of: Number = 0) -> Side:
    """Return the side of `of` that an entry's interval is on; inconclusive if it contains it or there is none."""
    return higher_of(entry, {"low": of, "high": of})


def higher_of(a: Interval, b: Interval) -> Side:
    """Compare two entries: `a` is above or below `b` if their intervals do not overlap."""
    first, second = ends_of(a), ends_of(b)
    if first is None or second is None:
        return "inconclusive"
    return "above" if first[0] > second[1] else "below" if first[1] < second[0] else "inconclusive"
