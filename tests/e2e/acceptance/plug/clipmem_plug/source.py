"""The data source `telegrams`: lines of JSON in a dialect of their own."""

import json
from pathlib import Path

from pydantic import Field

from clipmem.base.sections import Section
from clipmem.data.sources.base import Source, require_data
from clipmem.data.sources.files import read_files
from clipmem.data.sources.records import Part, Record, examine_file


class Telegrams(Source):
    """Lines such as {"pic": "a.png", "says": "a red square"}; the paths start from the file."""

    summary = "Lines of JSON with a `pic` and what it `says`."
    rank = 35

    class Settings(Section):
        """`[data.telegrams]`."""

        stop: bool = Field(True, description="Leave out the STOP that ends a telegram.")

    @classmethod
    def recognize(cls, probe):
        return "JSON lines with a `pic`" if probe.lines and probe.lines[0].startswith('{"pic"') else ""

    def records(self):
        path = Path(self.section.path)
        require_data(path.is_file(), self.section, "a file of telegrams")
        for number, line in enumerate(path.read_text().splitlines(), 1):
            self.ledger.read += 1
            told = json.loads(line)
            says = told["says"].removesuffix(" STOP") if self.settings.stop else told["says"]
            part = Part(f"line {number}", [says])
            yield Record(path.name, part.key, told["pic"], examine_file(path.parent / told["pic"]), [part])

    def read(self, references):
        return read_files(Path(self.section.path).parent, references)
