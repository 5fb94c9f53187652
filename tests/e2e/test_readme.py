"""What the README says is run: its example, its commands, and the marks that CI reads."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import clipmem
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.data.sources.emoji import emoji_table
from clipmem.study.api import find_recipe
from tests.e2e.running import clip
from tests.tiny import tiny_recipe
from tests.unit.data.sources import formats

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICKSTART, OWN_DATA, *GUIDES = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("quickstart", "own-data", "score", "compare", "view", "audit")
)


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run_block(text, capsys):
    [example] = blocks("python", text)
    exec(compile(example, "example", "exec"), {})
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs_on_a_folder_of_images(tmp_path, monkeypatch, capsys):
    """150 drawings, of which every tenth has the caption of the one before."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    table = emoji_table().unique("unicode", keep="first", maintain_order=True).head(150)
    captions = [names[0] for names in table["captions"].to_list()]
    for k, image in enumerate(table["image"].to_list()):
        Path(f"photos/{k}.webp").write_bytes(image["bytes"])
        Path(f"photos/{k}.txt").write_text(captions[k - (k % 10 == 9)], encoding="utf-8")
    printed = run_block(README, capsys)
    assert all(name in printed for name in ("uid", "label_score", "reason", "suggested_caption"))


def size(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def run_own_data(text, capsys):
    printed = run_block(text, capsys).splitlines()
    assert len(printed) == 2
    assert printed[0].startswith("Interval(mean=")
    assert printed[1].startswith("torch.Size([1, ")


@pytest.mark.slow
def test_the_python_example_of_own_data_runs_on_a_tiny_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(dump_recipe(tiny_recipe("train.seeds=[0]")))
    assert '"quick"' in OWN_DATA
    run_own_data(OWN_DATA.replace('"quick"', '"tiny.toml"'), capsys)


@pytest.mark.slow
def test_the_python_example_of_own_data_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_own_data(OWN_DATA, capsys)
    roles = clipmem.load_run("my-run").summary.roles
    # what a sound run shows, on the short setting
    assert roles["candidate"].low > 0 > roles["independent"].high
    assert abs(roles["shared"].mean) < 0.1
    assert abs(roles["external"].mean) < 0.1
    # of one seed, and of the demo, which has two, and embeds 1.3 times as many pairs
    cache, rest = size("my-run/cache"), size("my-run") - size("my-run/cache")
    demo, quick = (int(number) * 1e6 for number in re.findall(r"less than (\d+) MB", QUICKSTART))
    assert cache + rest < quick
    assert cache + 2 * 1.1 * rest < demo


def test_the_commands_exist():
    shown = subprocess.run(
        [sys.executable, "-m", "clipmem", "--help"], capture_output=True, text=True, check=True
    ).stdout
    used = {
        command
        for text in (QUICKSTART, OWN_DATA, *GUIDES)
        for command in re.findall(r"^ *clipmem (\w+)", "".join(blocks("sh", text)), flags=re.MULTILINE)
    }
    assert used == {
        "demo", "view", "inspect", "curate", "init", "run", "localize", "score", "export", "evaluate", "compare",
        "audit",
    }  # fmt: skip
    used |= set(re.findall(r"`clipmem (\w+)", README))
    assert {"init", "run", "score", "curate", "audit", "view", "compare"} <= used
    assert all(f" {command} " in shown for command in used)
    settings = re.findall(r"--set (\S+=[^\s`]+)", OWN_DATA)
    assert len(settings) == 4
    load_recipe("", settings)


@pytest.mark.slow
def test_the_commands_of_the_quickstart_read_coco(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    formats.coco(tmp_path / "coco", formats.some_pairs(120))
    [block] = [text for text in blocks("sh", QUICKSTART) if "coco/" in text]
    for line in block.splitlines():
        assert clip(*shlex.split(line)[1:]).returncode == 0
    assert Path("suspects/suspects.parquet").is_file()


def test_the_quickstart_explains_the_numbers_that_it_shows():
    [screen] = blocks("text", QUICKSTART)
    prose = QUICKSTART.replace(screen, "")
    printed = (ROOT / "tests" / "unit" / "report" / "screens" / "report-two-seeds.txt").read_text(encoding="utf-8")
    for label in ("CLIPMem by role, 95% intervals over pairs", "memorization", "caption trained with", "noise floor ±"):
        assert label in screen
        assert label in printed
    for number in re.findall(r"[+±]\d\.\d+", prose):
        assert number in screen
    for minutes in re.findall(r"\d+ min \d+ s", README):
        assert minutes in prose


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 80


def test_ci_finds_its_commands():
    for mark in ("main", "test"):
        [command] = re.findall(rf"<!-- ci: {mark} -->\n```sh\n(python3 .*)\n```", README)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")


@pytest.mark.parametrize("name", ["demo", "quick"])
def test_shipped_recipes_are_what_the_readme_says(name):
    recipe = find_recipe(name)
    assert recipe.data.source == "emoji-artists"
    assert len(recipe.train.seeds) == {"demo": 2, "quick": 1}[name]


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).is_file(), target


def test_no_file_is_longer_than_500_lines():
    long = {
        str(file.relative_to(ROOT)): count
        for folder in ("src", "tests")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".html", ".css", ".toml"}
        if (count := len(file.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long
