"""The explorer in a cell of a notebook: the page in one file, whose marks go to Python and to the file of marks.

The page is in a sandboxed frame, which cannot reach the notebook. It posts marks to a widget (widget.js), and Python
checks them like the server. Without the extra `notebook` there is no widget: marks stay in the page.
"""

import html
import tempfile
from functools import cached_property
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from clipmem.base.errors import ClipmemError, require, shorten
from clipmem.base.marks import Mark, read_marks
from clipmem.report.explorer.export import FILE_BYTES, MOST_IN_FILE, export_to
from clipmem.report.explorer.server import SIZES, Explorer
from clipmem.report.explorer.subject import open_subject
from clipmem.report.progress import reporter_here
from clipmem.report.run import Run
from clipmem.report.templating import notebook_html

# bytes of a page: of a widget nearly the limit of a file, of an output less, because notebooks are saved with it
_WIDGET, _OUTPUT = int(0.8 * FILE_BYTES), 2_000_000
_APP, _DETAILS = 300_000, 4_000  # bytes of a page without pairs, and of a pair without its image


class NotebookView:
    """Pairs to look at and to mark in a notebook: a cell that ends with it shows the explorer.

    Attributes:
        marks_file: Where marks are appended; `curate` and `clipmem.mitigate.remove` read this file.
    """

    def __init__(self, subject: Any) -> None:
        expected = "a run, a run folder, or the folder that clipmem curate wrote"
        hint = "A table names no data. Write a folder with clipmem.curate(DATA, out=FOLDER), and view it."
        require(isinstance(subject, Run | str | Path), "subject", type(subject).__name__, expected, hint)
        path = subject.path if isinstance(subject, Run) else Path(subject)
        written = not path.is_dir() or any((path / name).is_file() for name in ("recipe.toml", "curate.json"))
        require(written, f"{path}", "a folder of something else", expected, hint)
        self._explorer, self._rows = Explorer(open_subject(path)), list[int]()
        self.marks_file = self._explorer.marks_file

    def __repr__(self) -> str:
        return f"NotebookView({str(self._explorer.subject.path)!r}: {len(self._explorer.columns):,} pairs)"

    @property
    def marks(self) -> pl.DataFrame:
        """The marks in `marks_file`, by uid: mark, time, note and, of a mismatched caption, its new caption."""
        rows = [(uid, *mark) for uid, mark in read_marks(self.marks_file).items()]
        return pl.DataFrame(rows, dict.fromkeys(("uid", *Mark._fields), pl.String), orient="row")

    @cached_property
    def widget(self) -> Any:
        """The widget; None without the extra `notebook`."""
        if not find_spec("anywidget"):
            return None
        any_widget, text = import_module("anywidget").AnyWidget, import_module("traitlets").Unicode
        script = (resources.files("clipmem.report.explorer") / "widget.js").read_text(encoding="utf-8")
        members = {"__module__": __name__, "_esm": script, "html": text().tag(sync=True)}
        kind = type("PairsWidget", (any_widget,), members)
        widget = kind(html=self._html(_WIDGET))
        widget.on_msg(self._receive)
        return widget

    def _receive(self, widget: Any, message: Any, _: Any) -> None:
        widget.send(self._answer(message))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.widget._repr_mimebundle_(**kwargs) if self.widget else {}

    def _repr_html_(self) -> str | None:
        return None if self.widget else self._html(_OUTPUT)

    def _html(self, most: int) -> str:
        """Return the frame with the first pairs whose page has at most some bytes."""
        self._rows = self._first(most)
        with tempfile.TemporaryDirectory() as folder:
            file = export_to(Path(folder) / "page.html", self._explorer, self._rows, reporter_here())
            # links to parts of the page, which it keeps in its address, would else lead to the notebook
            base, text = '<head><base href="about:srcdoc">', file.read_text(encoding="utf-8", errors="replace")
        page = Markup(html.escape(text.replace("<head>", base, 1)))  # noqa: S704  templates show line ends as symbols
        about = {"pairs": len(self._rows), "total": len(self._explorer.columns), "saves": most == _WIDGET}
        return notebook_html("view", page=page, title=self._explorer.columns.manifest["title"], **about)

    def _first(self, most: int) -> list[int]:
        """Return rows in the order in which the page opens: those that it chooses first, then by its score."""
        columns, thumbnails, size = self._explorer.columns, self._explorer.thumbnails, _APP
        name, descending = columns.manifest["sort"].values()
        other = np.zeros(len(columns), dtype=np.bool_)
        for column, values in columns.manifest["picks"].items():
            codes = [(columns.by_name[column]["categories"] or []).index(value) for value in values]
            other |= ~np.isin(columns.values(column), codes)
        scores = np.arange(len(columns)) if name == "uid" else columns.values(name).astype(np.float64)
        rows = list[int]()
        for row in np.lexsort((-scores if descending else scores, other))[:MOST_IN_FILE].tolist():
            size += _DETAILS + len(thumbnails.get(row, SIZES[1]) or b"") * 4 // 3  # as base64
            if rows and size > most:
                break
            rows.append(row)
        return sorted(rows)

    def _answer(self, message: Any) -> dict[str, object]:
        """Append the marks that a page posted; return all marks of its pairs, or why there are none."""
        message = message if isinstance(message, dict) else {}
        answer: dict[str, object] = {"to": message.get("from"), "error": "", "marked": None}
        last = len(self._rows) - 1
        try:
            marks, hint = message.get("marks"), "Run the cell again."
            require(isinstance(marks, list), "marks", shorten(marks), "a list", hint)
            for mark in marks:
                number = mark.get("row") if isinstance(mark, dict) else None
                is_shown = type(number) is int and 0 <= number <= last
                require(is_shown, "mark", shorten(mark), f"a row from 0 to {last:,}", hint)
            if marks:
                self._explorer.post("marks", [mark | {"row": self._rows[mark["row"]]} for mark in marks])
            saved, uids = read_marks(self.marks_file), self._explorer.columns.uids
            entries = [(number, saved.get(uids[row])) for number, row in enumerate(self._rows)]
            answer["marked"] = [{"row": number} | mark._asdict() for number, mark in entries if mark]
        except (ClipmemError, OSError) as error:
            answer["error"] = str(error)
        return answer


def view(subject: Run | str | Path) -> NotebookView:
    """Look at pairs in a notebook, and mark them: a cell that ends with the returned view shows the explorer.

    Shows the first 2,000 pairs, at most 25 MB, of the order in which `clipmem view` opens. Marks are appended to the
    same file. Without the extra `notebook` (anywidget), shows at most 2 MB of pairs, and marks stay in the page.

    Args:
        subject: A run, a run folder, or the folder that `clipmem curate` wrote.

    Raises:
        InputError: It is neither a run nor a list of suspects, or its data are not there.

    Example:
        >>> clipmem.view("curated").marks.filter(mark="wrong")  # doctest: +SKIP
    """
    return NotebookView(subject)
