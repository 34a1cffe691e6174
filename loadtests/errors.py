"""The one exception tree of the load tests; each kind knows the exit code that the command line gives it.

Failures of single requests are not exceptions but data (`records.RequestError`): a load test that stops at
the first error measures nothing.
"""


class LoadTestError(Exception):
    """Base of everything that ends a command with a message instead of a traceback."""

    exit_code = 1


class ScenarioError(LoadTestError):
    """A scenario or context file that cannot be used: names the file, the line, the key and the nearest right
    one.
    """

    exit_code = 2


class ArgumentError(LoadTestError):
    """A command-line argument that cannot be used."""

    exit_code = 2


class InvalidError(LoadTestError):
    """The run was made and kept, but the load generator did not do what was asked, so it proves nothing."""

    exit_code = 3


class UnreachableError(LoadTestError):
    """Nothing answers at the base URL."""

    exit_code = 4


class RunError(LoadTestError):
    """The load generator itself failed; the message carries the end of its log."""


class StoppedEarlyError(LoadTestError):
    """The run was stopped before it began, so there is nothing to keep."""

    exit_code = 130


class ReportError(LoadTestError):
    """The folder of a run lacks a file, or a file in it cannot be read."""

    exit_code = 2
