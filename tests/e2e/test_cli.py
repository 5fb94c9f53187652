"""The command line: instant help, messages, exit codes, and that every command does what it says."""

import re
import resource
import subprocess
import sys

import pytest

import clipmem
from clipmem.base.recipes import dump_recipe, load_recipe
from clipmem.study.api import find_recipe
from tests.e2e.running import clip, clip_alone, processor_time
from tests.tiny import tiny_recipe


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(dump_recipe(tiny_recipe("train.seeds=[0]", "train.epochs=1")))
    return file


def test_help_imports_no_torch():
    code = "import sys, clipmem.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    probe = (
        "assert not {'torch', 'open_clip', 'polars', 'matplotlib', 'scipy'} & set(sys.modules), sys.modules.keys()\n"
    )
    shown = subprocess.run([sys.executable, "-c", code + probe], capture_output=True, text=True, check=True).stdout
    for command in (
        "demo", "init", "run", "curate", "inspect", "export", "score", "evaluate", "audit", "localize", "view",
        "compare", "validate-estimators", "doctor", "Start", "Your data", "Models", "Results", "Research",
    ):  # fmt: skip
        assert command in shown
    # the probe itself must be able to fail
    assert subprocess.run(
        [sys.executable, "-c", "import sys, polars\n" + probe], capture_output=True, check=False
    ).returncode


# as many commands, each of one line, of the library that parses the command line
BARE = """
import cyclopts
app = cyclopts.App(help_format="plaintext")
for i in range(16):
    def command(folder: int = 1, name: str = ""):
        '''Do this and that with it.'''
    app.command(command, name=f"c{i}")
app(["--help"])
"""


@pytest.mark.slow
def test_help_takes_at_most_twice_the_time_of_the_library_that_prints_it(tmp_path):
    pairs = [
        (processor_time(tmp_path, "-m", "clipmem", "--help"), processor_time(tmp_path, "-c", BARE)) for _ in range(8)
    ]
    assert {code for pair in pairs for code, _ in pair} == {0}
    # the first compiles
    ours, library = (min(seconds for _, seconds in times) for times in zip(*pairs[1:], strict=True))
    assert ours <= 2 * library, f"{ours:.3f} s; the library {library:.3f} s"


def test_init_writes_a_recipe_that_reads_back(tmp_path):
    file = tmp_path / "mine.toml"
    done = clip("init", file)
    assert done.returncode == 0
    assert done.stdout.endswith(f"Wrote {file}. Edit it if needed, then run: clipmem run {file}\n")
    # what is to be changed for data of one's own is unset, and nobody's captions are swapped
    assert load_recipe(file.read_text()) == load_recipe("")
    assert (load_recipe("").data.source, load_recipe("").data.path, load_recipe("").split.planted) == ("auto", "", 0)
    again = clip("init", file)
    assert again.returncode == 2
    assert again.stderr == (
        f"clipmem: {file}: got an existing file, expected a new file. Choose another name, or add --force.\n"
    )
    assert clip("init", file, "--preset", "quick", "--force").returncode == 0
    assert load_recipe(file.read_text()).train.seeds == (0,)
    printed = clip("init", "-", "--preset", "demo", "--set", "train.epochs=3")
    assert load_recipe(printed.stdout) == find_recipe("demo", ["train.epochs=3"])
    assert "# Passes over the training pairs" in printed.stdout
    assert clip("init", "-", "--preset", "demo", "--protocol", "subsample").returncode == 2


@pytest.mark.slow
def test_run_then_report(recipe, tmp_path):
    out = tmp_path / "a run"
    done = clip_alone("run", recipe, "--set", "train.lr=2e-3", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "CLIPMem by role" in done.stdout
    assert "Most memorized, 5 of 20 candidates" in done.stdout
    assert done.stdout.replace("\n", "").endswith(f"Report: {out}/report/index.html")
    lines = done.stdout.splitlines()[:-1]
    assert max(len(line) for line in lines if not line.startswith("Next: ")) <= 100
    assert f"Next: clipmem view '{out}'" in done.stdout
    for stage in ("decode", "plan", "train", "embed", "score", "evaluate", "report"):
        assert f"\n{stage}" in "\n" + done.stderr
    run = clipmem.load_run(out)
    assert run.recipe.train.lr == 2e-3
    assert run.manifest["user_set"] == ["train.lr=2e-3"]
    assert run.manifest["command"] == f"clipmem run {recipe} --set train.lr=2e-3 --out '{out}'"
    page = (out / "report" / "index.html").read_bytes()
    (out / "report" / "index.html").unlink()
    again = clip("view", out, "--report")
    assert again.returncode == 0, again.stderr
    assert (out / "report" / "index.html").read_bytes() == page
    assert clip("run", recipe, "--set", "train.lr=2e-3", "--out", out).stderr.count("done before") == 7


def test_wrong_input_is_one_line_and_exit_code_2(recipe, tmp_path):
    missing = clip("run", tmp_path / "none.toml")
    assert missing.returncode == 2
    assert missing.stderr == (
        f"clipmem: recipe {tmp_path / 'none.toml'}: got No such file or directory, expected a TOML file, 'demo' or "
        "'quick'. Create one with `clipmem init`.\n"
    )
    unknown = clip("run", recipe, "--set", "train.epoch=3")
    assert unknown.returncode == 2
    assert unknown.stderr == (
        f"clipmem: {recipe}: [train] epoch: got an unknown key, expected a key of [train]. Did you mean 'epochs'?\n"
    )
    too_many = clip("run", recipe, "--set", "split.external=9999", "--out", tmp_path / "x")
    assert too_many.returncode == 2
    assert "1,914 in the data" in too_many.stderr
    assert not (tmp_path / "x").exists()
    not_a_run = clip("view", tmp_path, "--report")
    assert not_a_run.returncode == 2
    assert "no recipe.toml in it" in not_a_run.stderr
    assert clip("rnu").returncode == 2
    assert clip("demo", "--seeds", "0").returncode == 2


def test_a_place_that_cannot_be_written_is_exit_code_2(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    done = clip("run", recipe, "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"clipmem: cannot write {tmp_path / 'file' / 'run'}: got Not a directory, expected a writable folder. "
        "Choose another --out DIR."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit",
    [pytest.param(100_000, id="first table"), pytest.param(3_000_000, id="weights of a model")],
)
def test_a_disk_that_fills_up_is_exit_code_1_and_leaves_nothing_half_done(recipe, tmp_path, limit):
    out = tmp_path / "run"
    done = clip_alone(
        "run", recipe, "--out", out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"clipmem: could not write {out}")
    assert "Nothing half-written was kept. Free some space and run the same command again" in last
    assert not list(out.rglob("*.tmp"))
    again = clip("run", recipe, "--out", out)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_doctor_runs_a_study():
    done = clip("doctor")
    assert done.returncode == 0, done.stderr
    assert "tiny study: finished in" in done.stdout
    assert done.stdout.endswith("no problems found\n")


@pytest.mark.slow
def test_doctor_measures_the_machine():
    done = clip("doctor", "--speed")
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    for task in ("train clipmem-tiny", "embed with clipmem-tiny", "decode images", "train ViT-B-32"):
        assert re.search(rf"{task} +[\d.,]+ pairs/s", shown)


@pytest.mark.slow
def test_localize_writes_its_tables_and_the_report_again(recipe, tmp_path):
    out = tmp_path / "run"
    assert clip("run", recipe, "--out", out).returncode == 0
    done = clip("localize", out, "--views", "2", "--pairs", "8")
    assert done.returncode == 0, done.stderr
    for name in ("units", "layers", "towers"):
        assert (out / "localize" / f"{name}.parquet").is_file()
    assert "Towers" in done.stdout
    assert "UnitMem" in (out / "report" / "index.html").read_text(encoding="utf-8")
    not_a_run = clip("localize", tmp_path)
    assert not_a_run.returncode == 2
    assert "no recipe.toml in it" in not_a_run.stderr


def test_localize_refuses_other_protocols(recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace('protocol = "four-way"', 'protocol = "subsample"'))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text(recipe.read_text())
    done = clip("localize", tmp_path / "run")
    assert done.returncode == 2
    assert "got protocol 'subsample', expected a four-way study" in done.stderr
