"""`BenchError`, the error for everything that a user can mend."""


class BenchError(ValueError):
    """Something the user can put right.

    The message is one sentence with the value got, the value wanted and the next step; the command line
    prints it without a traceback and exits with code 2.
    """
