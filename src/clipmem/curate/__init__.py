"""Find wrong captions: detectors, their fixed combination, and its calibration on planted errors.

`clipmem.curate(...)` calls `study.curating.curate`.
"""

from clipmem.base.callable_package import make_callable

make_callable(__name__, "clipmem.study.curating")
