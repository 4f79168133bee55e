"""The oracle of a run, independent of the code under test. Use `Oracle`, `CheckResult`, `statements`, `NAMES`."""

from fleet.oracle.check import CheckResult, Failure
from fleet.oracle.checks import NAMES, statements
from fleet.oracle.oracle import Oracle
from fleet.oracle.payload import text_for

__all__ = ["NAMES", "CheckResult", "Failure", "Oracle", "statements", "text_for"]
