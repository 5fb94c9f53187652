"""docs/plugins.md shows a file of the acceptance package and names the others; run as a module, this writes it anew."""

import re
import tomllib
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"
PLUG = Path(__file__).parent / "plug"
_BLOCK = re.compile(r"<!-- (\S+) -->\n```(\w+)\n.*?```\n", re.DOTALL)


def written(text):
    return _BLOCK.sub(lambda m: f"<!-- {m[1]} -->\n```{m[2]}\n{(PLUG / m[1]).read_text()}```\n", text)


def test_the_page_shows_a_file_of_the_package():
    text = PAGE.read_text()
    assert len(_BLOCK.findall(text)) == 1
    assert written(text) == text
    [block] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    shown, whole = tomllib.loads(block), tomllib.loads((PLUG / "pyproject.toml").read_text())
    for group, points in shown["project"].pop("entry-points").items():
        assert points.items() <= whole["project"]["entry-points"][group].items()
    del whole["project"]["entry-points"]
    assert shown == whole


def test_the_page_names_every_other_file():
    text = PAGE.read_text()
    assert str(PLUG.relative_to(PAGE.parents[1])) in text
    rows = re.findall(r"^\| `(clipmem\.\w+)` \|.*\| `(\w+\.py)` \|$", text, re.MULTILINE)
    points = tomllib.loads((PLUG / "pyproject.toml").read_text())["project"]["entry-points"]
    module = {group: name.partition(":")[0] for group, names in points.items() for name in names.values()}
    assert {group: f"clipmem_plug.{file.removesuffix('.py')}" for group, file in rows} == module
    files = {file.name for file in (PLUG / "clipmem_plug").glob("*.py")} - {"__init__.py"}
    assert {file for _, file in rows} == files


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
