"""Every error that AttriBoard raises on purpose.

    AttriboardError
    ├── InputError          the caller gave something wrong (exit code 2)
    │   ├── UnknownNameError    no task, attributor or selector of that name
    │   ├── HyperparameterError a hyperparameter is unknown or out of its range
    │   ├── CardError           a task card does not validate
    │   └── FormatError         a file is not what it should be: torn, foreign, of another task
    ├── DataError           a data set is missing or its bytes are not the pinned ones (exit code 2)
    └── NotApplicableError  an attributor or selector cannot work on this task; becomes a failed row

A message names the offending value, the rule it breaks and the way out. A command-line user sees the message
alone, never a traceback.
"""


class AttriboardError(Exception):
    """Base of every deliberate error."""

    exit_code = 1


class InputError(AttriboardError):
    """The caller's input is wrong."""

    exit_code = 2


class UnknownNameError(InputError):
    """No task, attributor or selector has this name."""


class HyperparameterError(InputError):
    """A hyperparameter is unknown, of the wrong type or out of range."""


class CardError(InputError):
    """A task card does not validate."""


class FormatError(InputError):
    """A file is torn, foreign, or belongs to another task."""


class DataError(AttriboardError):
    """A data set is missing, or its bytes are not the pinned ones."""

    exit_code = 2


class NotApplicableError(AttriboardError):
    """An attributor or a selector cannot work here; the reason becomes a failed row."""
