"""Names of shards: `{0000..0123}` ranges and `::` lists as webdataset writes them, and folders of tars."""

import re
from collections.abc import Sequence
from pathlib import Path

from clipmem.base.errors import InputError
from clipmem.base.require import require

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
MOST = 1_000_000


def expand(text: str) -> list[str]:
    """Expand ranges, choices and lists.

    Example:
        >>> expand("a-{08..10}.tar::b.tar"), expand("{x,y}.tar")
        (['a-08.tar', 'a-09.tar', 'a-10.tar', 'b.tar'], ['x.tar', 'y.tar'])
    """
    return [name for part in text.split("::") for name in _expanded(part)]


def _expanded(text: str) -> list[str]:
    names = [text]
    while True:
        span, choice = _RANGE.search(names[0]), _CHOICE.search(names[0])
        found = span or choice
        if found is None:
            return names
        options = _numbers(text, span) if span else found[1].split(",")
        got = f"{text!r}, which is more than {MOST:,} shards"
        require(len(names) * len(options) <= MOST, "[data] path", got, "fewer", "Make the range smaller.")
        names = [name.replace(found[0], option, 1) for name in names for option in options]


def _numbers(text: str, span: "re.Match[str]") -> Sequence[str]:
    first, last = int(span[1]), int(span[2])
    require(
        0 <= last - first < MOST,
        "[data] path",
        f"the range {span[0]} in {text!r}",
        f"the smaller number first, and at most {MOST:,} shards",
        "Correct the range.",
    )
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def is_list(text: str) -> bool:
    """Tell whether a path is a range or a list of shards."""
    return "::" in text or bool(_RANGE.search(text))


def find_shards(text: str) -> tuple[Path, list[str]]:
    """Return the tars behind a path: the folder that names start from, and the names."""
    path = Path(text)
    if text and path.is_dir():
        base, names = path, sorted(found.relative_to(path).as_posix() for found in path.rglob("*.tar"))
    else:
        base, names = Path(), expand(text) if text else []
    require(
        names,
        "[data] path",
        f"{text!r}, where there is no tar",
        "a tar, a folder with some, a range such as data/{0000..0123}.tar, or a list with ::",
        "Set data.path.",
    )
    missing = [name for name in names if not (base / name).is_file()]
    for name in missing:
        raise InputError(
            "[data] path",
            got=f"no file {name!r} ({len(missing):,} of {len(names):,} shards are missing)",
            expected="every shard that is named",
            hint="Put it back, or correct the range.",
        )
    return base, names
