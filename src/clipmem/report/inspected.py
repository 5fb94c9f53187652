"""What `clipmem data inspect` found, in a terminal: at most 100 columns, all text of the data made visible."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipmem.data.quarantine import ignored_sentence, records_sentence
from clipmem.report.escape import visible
from clipmem.report.numbers import duration
from clipmem.report.terminal import WIDTH

_CAPTION, _NAME, _REASONS = 160, 80, 12
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1))


def in_bytes(number: int | float) -> str:
    """Write a number of bytes with the unit that fits.

    Example:
        >>> in_bytes(23_500_000), in_bytes(12), in_bytes(0)
        ('23.5 MB', '12 bytes', '0 bytes')
    """
    unit, size = next((one for one in _UNITS if number >= one[1]), _UNITS[-1])
    return f"{number / size:,.1f} {unit}" if size > 1 else f"{number:,.0f} {unit}"


def print_inspection(document: Mapping[str, Any], console: Console) -> None:
    """Print what was found.

    Args:
        document: What `clipmem.study.data_commands.inspect` returns.
        console: Where to print. At most 100 of its columns are used.
    """
    width = min(WIDTH, console.width)
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(document):
        facts.add_row(name, Text(visible(value)))
    console.print(facts, width=width)
    if document["problems"]["reasons"]:
        console.print()
        console.print(_problems(document["problems"]["reasons"]), width=width)
    if document["samples"]:
        console.print()
        console.print(_samples(document["samples"]), width=width)
    if "cost" in document:
        console.print()
        for line in _cost(document["cost"]):
            console.print(Text(visible(line)), width=width)


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    captions, pictures, twins = document["captions"], document["pictures"], document["duplicates"]
    several = [f"{k}: {n:,}" for k, n in captions["per_pair"].items()]
    shown = several if len(several) <= 8 else [*several[:7], f"more: {_rest(captions['per_pair'], 7):,}"]
    rows = [
        ("format", f"{document['source']} ({document['why']})"),
        ("records", records_sentence(document["records"])),
        ("pairs", f"{document['pairs']:,}"),
        ("captions", f"{captions['total']:,}; pairs by number of captions: {', '.join(shown)}"),
        ("words", _spread(captions["words"])),
    ]
    ignored = ignored_sentence(document["records"]["ignored"])
    rows += [("ignored", ignored)] if ignored else []
    rows += [("labels", f"{document['labels']:,} different")] if document["labels"] else []
    read = _of(pictures["read"], pictures["of"], "headers")
    formats = ", ".join(f"{name} {count:,}" for name, count in pictures["formats"].items())
    rows += [
        ("pictures", f"{formats or 'none that reads'} ({read})"),
        ("width", f"{_spread(pictures['width'])} pixels"),
        ("height", f"{_spread(pictures['height'])} pixels"),
        ("file size", _spread(pictures["bytes"], in_bytes)),
        ("duplicates", f"exact: {_twins(twins['exact'])}; near: {_twins(twins['near'])}"),
    ]
    problems = document["problems"]
    tried = _of(problems["decoded"], problems["of"], "pictures")
    rows.append(("problems", f"{problems['left_out']:,} listed ({tried} decoded)"))
    return rows


def _rest(counts: Mapping[str, int], after: int) -> int:
    return sum(list(counts.values())[after:])


def _of(some: int, of: int, what: str) -> str:
    return f"all {of:,} {what}" if some >= of else f"{some:,} of {of:,} {what}"


def _spread(values: Mapping[str, int] | None, write: Any = "{:,}".format) -> str:
    if values is None:
        return "none"
    low, middle, high, top = (write(values[name]) for name in ("min", "median", "p95", "max"))
    return f"{low} to {top}, median {middle}, 95 % below {high}"


def _twins(found: Mapping[str, int]) -> str:
    if not found["pictures"]:
        return f"none among {found['of']:,} pictures"
    groups = f"{found['groups']:,} group{'s' if found['groups'] > 1 else ''}"
    return f"{found['pictures']:,} of {found['of']:,} pictures in {groups}"


def _problems(reasons: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Listed, and left out", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("records", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("for example", overflow="fold")
    for entry in reasons[:_REASONS]:
        examples = ", ".join(_short(one["source"], one["key"]) for one in entry["examples"])
        table.add_row(f"{entry['count']:,}", Text(visible(entry["reason"], _NAME)), Text(examples))
    if len(reasons) > _REASONS:
        rest = sum(entry["count"] for entry in reasons[_REASONS:])
        table.add_row(f"{rest:,}", f"{len(reasons) - _REASONS:,} other reasons", "")
    return table


def _short(source: str, key: str) -> str:
    return visible(key, _NAME) if key == source else f"{visible(source, _NAME)}: {visible(key, _NAME)}"


def _samples(samples: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Samples", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("key", max_width=24, overflow="fold")
    table.add_column("picture", no_wrap=True)
    table.add_column("captions", overflow="fold")
    for one in samples:
        captions = [visible(caption, _CAPTION) for caption in one["captions"]]
        captions += [f"({one['more_captions']:,} more)"] if one["more_captions"] else []
        table.add_row(
            Text(visible(one["key"], _NAME)),
            f"{one['format']} {one['width']:,} x {one['height']:,}",
            Text(" | ".join(captions)),
        )
    return table


def _cost(cost: Mapping[str, Any]) -> list[str]:
    return [
        f"A study of it: decoding {duration(cost['decode_seconds'])} once, a pixel cache of "
        f"{in_bytes(cost['cache_bytes'])}, training {duration(cost['train_seconds'])}.",
        f"Assumed: {cost['assumed']}. Measured just now: {cost['decoded_per_second']:,.0f} pictures decoded and "
        f"{cost['trained_per_second']:,.0f} pairs trained a second.",
    ]
