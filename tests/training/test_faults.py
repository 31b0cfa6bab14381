import re

import pytest

from fcn_keras.errors import UserError
from fcn_keras.runs.folder import RunFolder
from fcn_keras.training.faults import faults_as_user_errors


class FileThatCannotGrow:
    """A file that also fails when it is closed, as h5py's do when memory runs out."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        raise ValueError("I/O operation on closed file.") from None


def test_a_lack_of_memory_is_named_where_closing_the_file_fails_too(tmp_path):
    expected = f"Out of memory: .*--resume {re.escape(str(tmp_path))}"
    with (
        pytest.raises(UserError, match=expected),
        faults_as_user_errors(RunFolder(tmp_path)),
        FileThatCannotGrow(),
    ):
        raise MemoryError


def test_a_mistake_of_the_program_stays_one(tmp_path):
    with (
        pytest.raises(ValueError, match="closed file"),
        faults_as_user_errors(RunFolder(tmp_path)),
        FileThatCannotGrow(),
    ):
        raise RuntimeError


def test_a_users_mistake_stays_as_it_is(tmp_path):
    with pytest.raises(UserError, match="^mended$"), faults_as_user_errors(RunFolder(tmp_path)):
        try:
            raise MemoryError
        except MemoryError as error:
            raise UserError("mended") from error
