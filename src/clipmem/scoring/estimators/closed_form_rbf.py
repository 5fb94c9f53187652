"""`closed-form-rbf`: the closed form with an RBF kernel."""

from clipmem.scoring.estimators.base import ESTIMATORS
from clipmem.scoring.estimators.closed_form import ClosedForm


@ESTIMATORS.register("closed-form-rbf")
class ClosedFormRbf(ClosedForm):
    """`closed-form` with an RBF kernel of median width, by Nyström's method above 1,000 pairs."""

    summary = "Like closed-form, with an RBF kernel"
    kernel = "rbf"
