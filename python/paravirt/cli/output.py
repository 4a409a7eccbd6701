"""A file that we write while a guest runs: a full disk becomes one clear line instead of a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

from paravirt.errors import ParavirtError

__all__ = ["OutputError", "OutputStream"]


class OutputError(ParavirtError):
    """An output file cannot be written."""


class OutputStream:
    """Passes text to a file; an error of the file is raised as OutputError, once.

    what: how the message calls it, as in "the trace to 'run.log'".
    """

    def __init__(self, file: IO[str], what: str) -> None:
        self._file = file
        self._what = what

    def write(self, text: str) -> int:
        """Write text, buffered."""
        with self._explained():
            return self._file.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._explained():
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            with self._explained():
                self._file.close()
        else:
            with contextlib.suppress(OSError):  # the first error is the one to report
                self._file.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self._what}: {(error.strerror or str(error)).lower()}") from error
