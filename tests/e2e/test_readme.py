"""What the README says is run: its example, its commands, and the marks that CI reads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import clipmem
from clipmem.base.manifest import recipe_hash
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.data.sources.emoji import emoji_table
from clipmem.study.api import find_recipe
from tests.tiny import tiny_recipe

ROOT = Path(__file__).parents[2]
README, OWN_DATA = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/own-data.md"))


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run_block(text, capsys):
    [example] = blocks("python", text)
    exec(compile(example, "example", "exec"), {})
    return capsys.readouterr().out


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


def run_own_data(text, capsys):
    printed = run_block(text, capsys).splitlines()
    assert len(printed) == 2
    assert printed[0].startswith("Interval(mean=")
    assert printed[1].startswith("torch.Size([1, ")


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


def test_the_commands_exist():
    shown = subprocess.run(
        [sys.executable, "-m", "clipmem", "--help"], capture_output=True, text=True, check=True
    ).stdout
    used = set(re.findall(r"^clipmem (\w+)", "".join(blocks("sh", OWN_DATA)), flags=re.MULTILINE))
    assert used == {
        "inspect", "init", "run", "localize", "view", "score", "export", "evaluate", "compare", "reproduce"
    }  # fmt: skip
    used |= set(re.findall(r"`clipmem (\w+)", README))
    assert {"init", "run", "score", "curate", "audit", "view", "compare"} <= used
    # of a package of its own (reproduce/), which has its own tests
    assert all(f" {command} " in shown for command in used - {"reproduce"})
    settings = re.findall(r"--set (\S+=[^\s`]+)", OWN_DATA)
    assert len(settings) == 6
    load_recipe("", settings)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 80


def test_the_figure_of_the_demo_is_of_the_shipped_recipe():
    with Image.open(ROOT / "docs" / "images" / "demo.png") as image:
        assert image.info["Recipe"] == recipe_hash(find_recipe("demo")), "renew it with scripts/figure"


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
