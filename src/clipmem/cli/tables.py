"""The flag --json of every command that prints tables."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from cyclopts import Parameter

_Json = Annotated[bool, Parameter(negative="", help="Print JSON instead of tables.")]


def prints_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Add the flag --json to a command; its screens (`report.terminal.show`) are then printed as JSON."""

    @wraps(command)
    def run(*args: Any, json: bool = False, **options: Any) -> None:
        if not json:
            command(*args, **options)
            return
        from clipmem.report.terminal import AS_JSON

        token = AS_JSON.set(True)
        try:
            command(*args, **options)
        finally:
            AS_JSON.reset(token)

    flag = inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Json)
    signature = inspect.signature(command)
    parameters = [*signature.parameters.values(), flag]
    run.__dict__["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {**command.__annotations__, "json": _Json}
    return run
