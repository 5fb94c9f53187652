"""What tests of this package share with those of clipmem, and the document of a reproduction."""

from tests.conftest import _training_processes, pytest_collectstart  # noqa: F401
