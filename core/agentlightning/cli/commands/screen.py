"""The terminal is the run's: other libraries draw no bars on it, and what they warn of goes to the run's log."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.app import RUN_LOG
from agentlightning.errors import CheckError

if TYPE_CHECKING:
    from agentlightning.progress import Progress

SILENCED = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Variables by which the libraries that an agent or a policy loads are told to be silent; one that is set is left."""
MAX_ALIKE = 3
LOG = "log.txt"


class RunLog(logging.Handler):
    """Keeps warnings and errors, of any library, in the run's folder: as soon as there is one, from the beginning."""

    def __init__(self, directory: Path, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self._directory = directory
        self._progress = progress
        self._waiting: list[logging.LogRecord] = []
        self._formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.path: Path | None = None
        """Where the log is, once something is in it."""

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(record)
        self.flush()

    def flush(self) -> None:
        from agentlightning.redaction import redact  # loads msgspec, which `agl --help` can do without

        run = self._progress.run
        if run is None or not self._waiting:
            return
        lines = "".join(f"{self._formatter.format(record)}\n" for record in self._waiting)
        self._waiting.clear()
        path = self._directory / run.id / LOG
        try:
            with path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(redact(lines))
        except OSError:  # a full disk: what is logged of it must not be the next fault
            return
        self.path = path

    def traceback(self, error: BaseException) -> None:
        """Keeps an error with its traceback."""
        trace = (type(error), error, error.__traceback__)
        self.handle(logging.LogRecord("agentlightning", logging.ERROR, __file__, 0, "the run stopped", (), trace))


@contextmanager
def failing_run(ctx: click.Context, log: RunLog, progress: Progress) -> Iterator[None]:
    """What stops a run that has begun inside the block is kept in its log, and is the run's failure (`RUN_LOG`), not
    the command line's."""
    try:
        yield
    except BaseException as error:
        if progress.run is not None and not isinstance(error, CheckError):
            if isinstance(error, Exception):
                log.traceback(error)
            ctx.meta[RUN_LOG] = log.path
        raise


class Warnings(logging.Handler):
    """Shows this library's own warnings, a line each; of those that are alike the first few."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.name.startswith("agentlightning")

    def emit(self, record: logging.LogRecord) -> None:
        self._shown[record.msg] += 1
        alike = self._shown[record.msg]
        if alike > MAX_ALIKE:
            return
        more = f" (more like this only in {LOG})" if alike == MAX_ALIKE else ""
        try:
            click.echo(f"{record.getMessage()}{more}", err=True)
        except OSError:  # the terminal is gone
            return


@contextmanager
def own_screen(progress: Progress, directory: str, *, quiet: bool, debug: bool) -> Iterator[RunLog]:
    """Inside the block only the run writes to the terminal; with ``quiet`` only its errors. With ``debug`` all is
    shown."""
    log = RunLog(Path(directory), progress)
    if debug:
        yield log
        return
    for name, value in SILENCED.items():
        os.environ.setdefault(name, value)
    handlers = [log, Warnings(logging.ERROR if quiet else logging.WARNING)]
    for handler in handlers:
        logging.root.addHandler(handler)
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        try:
            yield log
        finally:
            log.flush()
            logging.captureWarnings(False)
            for handler in handlers:
                logging.root.removeHandler(handler)
