"""The one exception a user is meant to read.

It knows nothing of where it is shown: the terminal prints it and exits with status 2, the page
shows it as a toast, a notebook as a traceback's last line.
"""


class StudioError(Exception):
    """Bad input, said in one sentence: what is wrong and what to do about it."""
