"""docs/plugins.md shows the acceptance package as it is; run as a module, this writes the page anew."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"
PLUG = Path(__file__).parent / "plug"
_BLOCK = re.compile(r"<!-- (\S+) -->\n```(\w+)\n.*?```\n", re.DOTALL)


def written(text):
    return _BLOCK.sub(lambda m: f"<!-- {m[1]} -->\n```{m[2]}\n{(PLUG / m[1]).read_text()}```\n", text)


def test_the_page_shows_the_package():
    text = PAGE.read_text()
    assert len(_BLOCK.findall(text)) == 11
    assert written(text) == text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
