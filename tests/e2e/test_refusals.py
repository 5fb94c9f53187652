"""What the command line refuses: with exit code 2, in one line of four parts, before torch is imported."""

import json
import os
import subprocess
import sys

import pytest

from clipmem.base.recipes import dump_recipe
from tests.e2e.running import processor_time
from tests.tiny import tiny_recipe

LONG, DEVICE, NUL = "x" * 10_000, "/proc/self/mem", "a\0b"
SET = ["run", "quick", "--out", "new", "--set"]
PAIR = ["score", "--out", "s.parquet", "--reference", "clipmem-micro@weights.pt"]
EMBED = ["export", "embeddings", "--model"]
GIVEN = ["--set", 'protocol="given"', "--set", 'given.reference=["."]', "--set"]
# the arguments, and what the message says of them
CASES = {
    # names
    "recipe": (["run", "quik"], "Did you mean 'quick'?"),
    "recipe in this folder": (["run", "mien.toml"], "Did you mean 'mine.toml'"),
    "engine": (["run", "quick", "--engine", "rya"], "Did you mean 'ray'?"),
    "processes without Ray": (["run", "quick", "--processes", "2"], "--processes 2: got --engine local"),
    "suspects": (["curate", "emoji", "--suspects", "recall=2"], "For example precision=0.7."),
    "device": (["run", "quick", "--device", "cpi"], "Did you mean 'cpu'?"),
    "architecture": ([*SET, "model.name=ViT-B-33"], "'ViT-B-32'"),
    "shipped architecture": ([*SET, "model.name=clipmem-tny"], "'clipmem-tiny'"),
    "data source": ([*SET, "data.source=webdatset"], "Did you mean 'webdataset'"),
    "protocol": ([*SET, "protocol=four-wya"], "Did you mean 'four-way'?"),
    "protocol of init": (["init", "new.toml", "--protocol", "four-wya"], "Did you mean 'four-way'?"),
    "objective": ([*SET, "train.objective=siglp"], "Did you mean 'siglip'"),
    "alignment": ([*SET, "score.alignment=clpi"], "Did you mean 'clip'"),
    "key": ([*SET, "train.epoch=3"], "Did you mean 'epochs'?"),
    "model": ([*PAIR, "--target", "ViT-B-33"], "'ViT-B-32'"),
    "architecture to time": (["inspect", "emoji", "--architecture", "clipmem-tny"], "'clipmem-tiny'"),
    "model or data to inspect against": (["inspect", "emoji", "--against", "ViT-B-33"], "'ViT-B-32'"),
    "limit of leaks": (["inspect", "emoji", "--fail-above", "0.1"], "--fail-above: got no other data"),
    "list of leaks": (["inspect", "emoji", "--out", "leaks.csv"], "--out: got no other data"),
    "limit of leaks of a model": (["inspect", "ViT-B-32", "--fail-above", "0.1"], "--fail-above: got no other data"),
    "trace without a run": (["score", "--trace", "a"], "--trace: got no run"),
    "share of suspects": (["curate", "emoji", "--fail-above", "5"], "--fail-above"),
    "source of evaluate": (["evaluate", "--model", ".", "--source", "emojy"], "'emoji'"),
    # empty paths, such as shell variables that are not set
    "empty data to curate": (["curate", ""], "data: got an empty path"),
    "empty data to inspect": (["inspect", ""], "data: got an empty path"),
    "empty data to export": (["export", "pairs", "", "--to", "parquet", "--out", "new"], "data: got an empty path"),
    "empty data to score": (["score", "--out", "s.parquet", "--data", ""], "data: got an empty path"),
    "empty bank": (["score", "--out", "s.parquet", "--data", "emoji", "--bank", ""], "data: got an empty path"),
    "empty data to embed": (
        [*EMBED, ".", "--data", "", "--out", "new"],
        "data: got an empty path",
    ),
    "empty data to rank": (["score", "--data", ""], "data: got an empty path"),
    "empty data to evaluate": (["evaluate", "--model", ".", "--data", ""], "data: got an empty path"),
    "empty data to interpolate": (
        ["evaluate", "--model", ".", ".", "--interpolate", "0", "--data", ""],
        "data: got an empty path",
    ),
    "empty data to start from": (["init", "new.toml", "--data", ""], "data: got an empty path"),
    "empty members": (["audit", "--model", ".", "--members", "", "--nonmembers", "x"], "data: got an empty path"),
    # paths that are not there
    "no recipe": (["run", "none.toml"], "No such file"),
    "no data": ([*SET, "data.source=auto", "--set", "data.path=none"], "no such file or folder"),
    "no shards": ([*SET, "data.source=webdataset", "--set", "data.path={0..9}.tar"], "no file '0.tar'"),
    "no given model": ([*SET, 'given.target=["none"]', *GIVEN[:-1]], "no such folder"),
    "no roles": ([*SET, 'given.target=["."]', *GIVEN, "given.roles=none.csv"], "[given] roles none.csv"),
    "no objects": ([*SET, "dejavu.objects=none.parquet"], "[dejavu] objects none.parquet"),
    "no class names": ([*SET, "evaluate.classnames=none.csv"], "[evaluate] classnames none.csv"),
    "no target": ([*PAIR, "--target", "none", "--data", "emoji"], "model 'none'"),
    "no checkpoint": ([*PAIR, "--target", "clipmem-micro@none.pt", "--data", "emoji"], "no such file after @"),
    "no pairs": ([*PAIR, "--target", ".", "--reference", ".", "--data", "none"], "no such file or folder"),
    "no model": ([*EMBED, "none", "--data", "emoji", "--out", "new"], "model 'none'"),
    "no pairs to embed": (
        [*EMBED, ".", "--data", "none", "--out", "new"],
        "no such file or folder",
    ),
    "no run to evaluate": (["evaluate", "none"], "no such folder"),
    "nothing to evaluate": (["evaluate"], "neither a run folder nor --model"),
    "no model to evaluate": (["evaluate", "--model", "none", "--data", "emoji"], "model 'none'"),
    "no data to evaluate": (["evaluate", "--model", ".", "--data", "none"], "no such file or folder"),
    "no templates": (["evaluate", "--model", ".", "--data", ".", "--templates", "none"], "--templates none"),
    "no run to localize": (["localize", "none"], "no such folder"),
    "no run to compare": (["compare", "none", "other"], "no such folder"),
    "no run to report": (["view", "none", "--report"], "no such folder"),
    "no data to inspect": (["inspect", "none"], "no such file or folder"),
    "no data to export": (["export", "pairs", "none", "--to", "parquet", "--out", "new"], "no such file or folder"),
    "no scores": (["export", "ids", "none", "--out", "a.txt"], "no such file"),
    # places that hold something else
    "folder of others": (["run", "quick", "--out", "."], "a folder with other files"),
    "folder of another study": (["run", "mine.toml", "--out", "run", "--set", "train.lr=0.5"], "train.lr"),
    "file as run": (["run", "quick", "--out", "mine.toml"], "cannot write mine.toml"),
    "place without folders": (["run", "quick", "--out", "/proc/new"], "cannot write /proc/new"),
    "place of scores": (["score", "--out", "/proc/s.parquet", "--target", ".", "--reference", "."], "cannot write"),
    "place of embeddings": (
        [*EMBED, ".", "--data", "emoji", "--out", "/proc/new"],
        "cannot write",
    ),
    "folder as recipe": (["run", "."], "not a regular file"),
    "folder as scores": (["export", "ids", ".", "--out", "a.txt"], "no recipe.toml"),
    "other ending": ([*PAIR, "--target", ".", "--out", "s.csv"], "--out"),
    # recipes that are none
    "empty": (["run", "empty.toml"], "a file without keys"),
    "binary": (["run", "binary.toml"], "not UTF-8"),
    "deep": (["run", "deep.toml"], "nested too deeply"),
    "large": (["run", "large.toml"], "more than 1,048,576 bytes"),
    "digits": (["run", "digits.toml"], "too many digits"),
    "mark in front": (["run", "mark.toml"], "'none'"),
    "device file": (["run", DEVICE], "Input/output error"),
    # texts that no path can be
    **{
        f"{name} {kind}": (arguments, said)
        for kind, text, said in (("too long", LONG, "bytes"), ("with NUL", NUL, "NUL"))
        for name, arguments in {
            "recipe": ["run", text],
            "out": ["run", "quick", "--out", text],
            "report": ["view", text, "--report"],
            "localize": ["localize", text],
            "compare": ["compare", text, text],
            "evaluate": ["evaluate", text],
            "ids": ["export", "ids", text, "--out", "a.txt"],
            "embeddings": ["score", "--out", "s.parquet", "--embeddings", text],
            "init": ["init", text],
            "data": ["inspect", text],
        }.items()
    },
    "long model": ([*PAIR, "--target", LONG], "model 'xxx"),
    "long name": ([*SET, f"model.name={LONG}"], "no model of that name"),
    "long config": ([*SET, f"model.name={LONG}.json"], "10,005 bytes"),
    "long data": ([*SET, f"data.path={LONG}", "--set", "data.source=auto"], "10,000 bytes"),
    "long key": ([*SET, f"train.{LONG}=1"], "an unknown key"),
    "device as model": ([*PAIR, "--target", DEVICE], "a file"),
    "device as data": ([*SET, f"data.path={DEVICE}", "--set", "data.source=auto"], "[data] path"),
    # command lines
    "command": (["rnu"], "Did you mean 'run'?"),
    "command of export": (["export", "pair"], "Did you mean 'pairs'?"),
    "long command": ([LONG], "an unknown command"),
    "option": (["run", "quick", "--devise", "cpu"], "'--device'"),
    "long option": (["run", "quick", f"--{LONG}"], "an unknown option"),
    "no argument": (["run"], "RECIPE: got no value"),
    "an option that is required": (
        ["export", "embeddings", "--data", "emoji", "--model", "."],
        "export embeddings --out: got no value, expected a value: it is",
    ),
    "no preset": (["init", "a.toml", "--preset", "nope"], "got 'nope', expected demo, quick"),
    "no file": (["inspect", "/dev/null"], "'/dev/null', neither a file nor a folder"),
    "no value": (["run", "quick", "--out"], "--out: got no value"),
    "no number": ([*PAIR, "--views", "some"], "expected a whole number"),
    "out of range": ([*PAIR, "--views", "-1"], "expected a value >= 0"),
    "twice": (["run", "quick", "--out", "a", "--out", "b"], "--out"),
    "one too many": (["run", "quick", "more"], "more"),
}
PROBE = """
import contextlib, io, json, sys, traceback
from clipmem.cli import main
for name, arguments in json.load(sys.stdin):
    told = io.StringIO()
    code, trace = None, ""
    try:
        with contextlib.redirect_stderr(told):
            main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        trace = traceback.format_exc()
    print(json.dumps([name, [code, told.getvalue(), trace, "torch" in sys.modules]]), flush=True)
    if "torch" in sys.modules:
        break
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Run every case, in one process: what the first one imports would be there for the second."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "mine.toml").write_text(dump_recipe(tiny_recipe()))
    (folder / "run").mkdir()
    (folder / "run" / "recipe.toml").write_text(dump_recipe(tiny_recipe()))
    (folder / "empty.toml").write_text("# nothing\n\n")
    (folder / "binary.toml").write_bytes(bytes(range(256)))
    (folder / "deep.toml").write_text("a = " + "[" * 100_000)
    (folder / "large.toml").write_text("#" * 10_000_000)
    (folder / "digits.toml").write_text("[train]\nepochs = " + "9" * 9000)
    (folder / "mark.toml").write_text("\ufeff[data]\npath = 'none'")
    before = sorted(folder.rglob("*"))
    cases = json.dumps([[name, arguments] for name, (arguments, _) in CASES.items()])
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input=cases, capture_output=True, text=True, check=True, cwd=folder
    )
    assert sorted(folder.rglob("*")) == before
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_refused_before_torch(refused, name):
    code, told, trace, torch = refused[name]
    assert not trace
    assert not torch
    assert code == 2
    said = CASES[name][1]
    assert said in told
    assert told.startswith("clipmem: ")
    assert told.count("\n") == 1
    assert len(told) < 700
    assert ": got " in told
    assert ", expected " in told


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "none.toml"],
        ["run", "quick", "--set", "data.path=none", "--set", "data.source=auto"],
        ["localize", "none"],
    ],
    ids=" ".join,
)
def test_a_refusal_takes_at_most_half_the_time_of_importing_torch(arguments, tmp_path):
    refused = ["-m", "clipmem", *arguments]
    pairs = [(processor_time(tmp_path, *refused), processor_time(tmp_path, "-c", "import torch")) for _ in range(4)]
    assert {(ours, torch) for (ours, _), (torch, _) in pairs} == {(2, 0)}
    # the first compiles
    ours, torch = (min(seconds for _, seconds in times) for times in zip(*pairs[1:], strict=True))
    assert ours <= torch / 2, f"{ours:.3f} s; torch {torch:.3f} s"


@pytest.mark.parametrize("shown", [False, True], ids=["file", "stderr"])
def test_an_unexpected_error_is_one_line_and_exit_code_1(shown, tmp_path):
    code = (
        "import sys, clipmem.study.api as api\n"
        "def find(*_): raise KeyError('unthought of')\n"
        "api.find_recipe = find\n"
        "sys.argv = ['clipmem', 'run', 'quick']\n"
        "from clipmem.cli import main\n"
        "main()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)} | ({"CLIPMEM_TRACEBACK": "1"} if shown else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("clipmem: This is a bug in clipmem; please report it. KeyError: 'unthought of'")
    files = [file for file in tmp_path.iterdir() if file.suffix == ".txt"]
    if shown:
        assert "Traceback" in done.stderr
        assert not files
    else:
        assert len(done.stderr.splitlines()) == 1
        assert str(files[0]) in last
        assert "in find" in files[0].read_text()


def test_an_unexpected_error_is_not_swallowed_where_python_calls(monkeypatch):
    from clipmem.cli import main
    from clipmem.study import api

    def find(*_):
        raise KeyError("unthought of")

    monkeypatch.setattr(api, "find_recipe", find)
    before = sys.excepthook  # a library may have set its own
    with pytest.raises(KeyError):
        main(["run", "quick"])
    assert sys.excepthook is before


CALLS = [
    "run.top(0)",
    "run.top(-1)",
    "run.top('3')",
    "run.top(3, role='x')",
    "run.top(3, role='candidat')",
    "run.images([])",
    "run.images('x')",
    "run.images(['x'])",
    "run.model('x', 0)",
    "run.model('f', 99)",
    "run.model('f', '0/../../../x')",
    "clipmem.load_run(LONG)",
    "clipmem.load_run(NUL)",
    "clipmem.run(LONG, 'new')",
    "clipmem.run('quick', LONG)",
    "clipmem.score(LONG, LONG, 'emoji')",
    "clipmem.score(run.path, run.path, LONG)",
    "clipmem.score(run.path, run.path, ['a'])",
]
CALLER = """
import json, sys
import clipmem
where, LONG, NUL, calls = json.load(sys.stdin)
run = clipmem.load_run(where)
for call in calls:
    try:
        told = ["no error", repr(eval(call))]
    except clipmem.InputError as error:
        told = [error.what, error.got, error.expected, error.hint]
    except BaseException as error:
        told = ["another error", repr(error)]
    print(json.dumps(told))
"""


@pytest.mark.slow
def test_wrong_calls_from_python_have_four_parts(finished):
    # in a process of its own: the tests check types before the functions can
    given = json.dumps([str(finished.path), LONG, NUL, CALLS])
    done = subprocess.run([sys.executable, "-c", CALLER], input=given, capture_output=True, text=True, check=True)
    told = dict(zip(CALLS, map(json.loads, done.stdout.splitlines()), strict=True))
    assert {call: parts for call, parts in told.items() if len(parts) < 4 or not all(parts)} == {}
    assert all(len(" ".join(parts)) < 700 for parts in told.values())
