"""The wheel and the sdist: what is in them, how large they are, and that every dependency has a reason."""

import email
import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

import clipmem

ROOT = Path(__file__).parents[2]
LIMIT = 20e6


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist and the wheel."""
    place = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", place], cwd=ROOT, capture_output=True, check=True)
    [sdist], [wheel] = place.glob("*.tar.gz"), place.glob("*.whl")
    return sdist, wheel


def test_they_are_small(built):
    assert all(file.stat().st_size <= LIMIT for file in built)
    assert [file.name for file in built] == [
        f"clipmem-{clipmem.__version__}.tar.gz",
        f"clipmem-{clipmem.__version__}-py3-none-any.whl",
    ]


def test_the_wheel_has_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        info = f"clipmem-{clipmem.__version__}.dist-info"
        about = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    files = {name.removeprefix("clipmem/") for name in names if name.startswith("clipmem/")}
    source = ROOT / "src" / "clipmem"
    expected = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    # the sources of the explorer's page: the wheel has what is built of them
    sources = "report/explorer/app/"
    assert files == {name for name in expected if "__pycache__" not in name and not name.startswith(sources)}
    assert {"py.typed", "data/assets/emoji.parquet", "data/assets/README.md"} <= files
    assert {name for name in names if not name.startswith(("clipmem/", info))} == set()
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(names)
    assert about["License-Expression"] == "Apache-2.0"
    assert {"all", "hf", "notebook", "ray", "wordnet"} <= set(about.get_all("Provides-Extra"))


def test_the_sdist_has_the_tests_and_the_documents(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "tests/conftest.py", "docs/score.md"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".pt", ".safetensors"))]


@pytest.fixture
def dependencies():
    loader = SourceFileLoader("dependencies", str(ROOT / "scripts" / "dependencies"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("dependencies", loader))
    loader.exec_module(module)
    return module


def test_every_dependency_has_a_reason(dependencies):
    named = {dependencies.name_of(one) for group in dependencies.groups().values() for one in group} - {"clipmem"}
    assert named == set(dependencies.PROJECT["tool"]["clipmem"]["reasons"])
    table = dependencies.table()
    assert all(f" | {reason} |" in table for reason in dependencies.PROJECT["tool"]["clipmem"]["reasons"].values())


def test_the_cost_counts_what_is_installed(dependencies):
    known = dependencies.closure(["rich"], {})
    assert {"rich", "pygments", "markdown-it-py", "mdurl"} == set(known)
    assert 0.5 < sum(map(dependencies.megabytes, known.values())) < 50
