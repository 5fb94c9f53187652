"""Command lines that were mistyped, and values that no option takes."""

import random
from collections.abc import Iterator

from tests.hostile.case import ACCEPTED, REFUSED, Case, group, nothing

_COMMANDS = {
    "demo": [],
    "init": ["-"],
    "run": ["quick"],
    "score": ["--out", "s.parquet", "--target", "a", "--reference", "b", "--data", "emoji"],
    "export embeddings": ["--model", "a", "--data", "emoji", "--out", "e"],
    "evaluate": ["nowhere"],
    "localize": ["nowhere"],
    "audit": ["nowhere"],
    "compare": ["nowhere", "nowhere-else"],
    "doctor": [],
    "inspect": ["nowhere"],
    "export pairs": ["nowhere", "--to", "parquet", "--out", "x"],
    "export ids": ["nowhere", "--out", "x.txt"],
}


def _mistyped(rng: random.Random, word: str) -> str:
    """Drop, double or swap one letter."""
    k = rng.randrange(1, len(word) - 1)
    dropped, doubled = word[:k] + word[k + 1 :], word[:k] + word[k] + word[k:]
    return rng.choice([dropped, doubled, word[: k - 1] + word[k] + word[k - 1] + word[k + 1 :]])


@group("command lines")
def cases(rng: random.Random) -> Iterator[Case]:
    """Mistyped commands and options, wrong values, missing and surplus arguments."""
    for command, arguments in _COMMANDS.items():
        words = command.split()
        wrong = [*words[:-1], _mistyped(rng, words[-1])]
        while " ".join(wrong) in _COMMANDS:
            wrong = [*words[:-1], _mistyped(rng, words[-1])]
        yield Case(f"mistyped command {' '.join(wrong)}", wrong)
        yield Case(f"{command} with an unknown option", [*words, *arguments, "--no-such-option"])
        yield Case(f"{command} --help", [*words, "--help"], nothing, ACCEPTED)
        if arguments and command != "init":
            yield Case(f"{command} without its arguments", words)
        if command not in {"compare", "evaluate"}:
            yield Case(f"{command} with an argument too many", [*words, *arguments, "one", "two", "three"])
    choices = {
        "run": ("quick", "--device", ["tpu", "cuda:99", "", "CPU "]),
        "compare": ("a", "--measure", ["clip", "norm"]),
        "export pairs": ("emoji", "--to", ["zip", "PARQUET ", "../x"]),
    }
    for command, (argument, option, values) in choices.items():
        for value in values:
            more = ["--out", "x"]
            yield Case(
                f"{command} {option} {value!r}", [*command.split(), *filter(None, [argument]), option, value, *more]
            )
    for value in ("-1", "0", "1.5", "nan", "1e400", "9" * 400, "", "five", "0x10"):
        yield Case(f"export ids --top {value[:12]!r}", ["export", "ids", "nowhere", "--out", "x.txt", "--top", value])
    for engine in ("spark", "ray:/nowhere", "", "local "):
        yield Case(f"run --engine {engine!r}", ["run", "quick", "--out", "x", "--engine", engine], ends=REFUSED)
    for text in (
        "\x1b[2Jscreen",
        "\u202egnp.exe",
        "a" * 5000,
        "%s%n{0}",
        "--",
        "-",
        "é\udcff".encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
    ):
        yield Case(
            f"an odd word {text[:12]!r} as command", [text], ends=frozenset({0, 2}) if text in {"-", "--"} else REFUSED
        )
