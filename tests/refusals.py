"""A command that the user has to mend: one line on stderr, and exit code 2."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO

import pytest

from prunedge.cli.app import main


def refusal(*arguments: object) -> str:
    """The one line that the command ends with."""
    stderr = StringIO()
    with redirect_stderr(stderr), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])

    text = stderr.getvalue()
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2, text
    assert len(errors) == 1, text
    assert "Traceback" not in text, text
    return errors[0]
