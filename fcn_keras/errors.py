"""The one exception that the command line shows without a traceback."""


class UserError(ValueError):
    """A mistake that the user can mend: a bad file, value or combination of them.

    Its message is one or two lines that name the file or argument, the value
    received and a remedy.
    """
