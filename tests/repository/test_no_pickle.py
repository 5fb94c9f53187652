"""No file that somebody sends runs code: what unpickles is refused by the lint, and by a reading of the syntax."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "reproduce" / "clipmem_reproduce").rglob("*.py")])
# each with the arguments that make it safe: ruff refuses names (pyproject.toml), not missing arguments
SAFE = {
    "np.load": [{"allow_pickle": False}],
    "numpy.load": [{"allow_pickle": False}],
    "np.save": [{"allow_pickle": False}],
    "read_array": [{"allow_pickle": False}],
    "torch.load": [{"weights_only": True}],
    "from_pretrained": [{"trust_remote_code": False}, {"weights_only": True}],
}


def careless(source):
    """Return the line and name of each call that may run code of a file."""
    found, tree = [], ast.parse(source)
    settings = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if target.id == "_OFFLINE"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = next((SAFE[end] for end in SAFE if name == end or name.endswith(f".{end}")), None)
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords if word.arg}
            for word in node.keywords:
                given |= {} if word.arg else settings.get(ast.unparse(word.value), {})
            if safe and not any(one.items() <= given.items() for one in safe):
                found.append((node.lineno, name))
    return found


def test_no_call_in_the_sources_may_run_code_of_a_file():
    assert len(SOURCES) > 200
    assert {str(file): found for file in SOURCES if (found := careless(file.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "call",
    [
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, mmap_mode='r')",
        "np.lib.format.read_array(file, allow_pickle=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(folder)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
    ],
)
def test_the_reading_sees(call):
    assert careless(call) == [(1, call.partition("(")[0])]


def test_the_reading_lets_pass():
    assert careless("np.load(f, allow_pickle=False); torch.load(f, weights_only=True); json.load(f)") == []


def test_the_lint_bites():
    """Each line is refused, by the rule that is named beside it."""
    source = """
import pickle  # TID251
from pickle import loads  # TID251
import joblib  # TID251
from joblib import Memory  # TID251
import shelve  # TID251
import dill  # TID251
import cloudpickle  # TID251
import marshal  # TID251
import jsonpickle  # TID251
import yaml  # TID251
import pandas as pd
import torch
pd.read_pickle(path)  # TID251
torch.jit.load(path)  # TID251
pickle.load(file)  # S301
eval(text)  # S307
exec(text)  # S102
"""
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--select", "TID,S"]
    command += ["--stdin-filename", "src/clipmem/base/new.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, check=False)
    refused = {tuple(line.split(":", 3)[1:4:2]) for line in done.stdout.splitlines() if line.startswith("src")}
    refused = {(number, text.split()[0]) for number, text in refused}
    lines = enumerate(source.splitlines(), 1)
    assert {(str(number), line.split("# ")[1]) for number, line in lines if "# " in line} <= refused
