"""Output of `clipmem inspect`: the parts of a model and what of them is trained."""

from clipmem.report.sections import SECTIONS, Document, Section, Shown


@SECTIONS.register("model")
class Model(Section):
    """Parts of a model, with the number of their parameters."""

    page, screen = "", "model"

    def data(self, subject: Document) -> Shown:
        parts = subject["parts"]
        return {"total": {key: sum(part[key] for part in parts) for key in ("parameters", "trained")}}
