from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from disinr_monai.numerics.cache import default_cache_dir

logger = logging.getLogger(__name__)


def start_database(path: Path) -> bool:
    """Put an empty MLflow database of the installed version at ``path``, unless there is a file.

    MLflow makes one by going through all changes that its tables ever had, and waits for the disk after each: six
    seconds on a plain disk, for every new output folder. Here that is done once a version of MLflow, without waiting,
    kept in the cache folder (``$DISINR_CACHE``), and copied. MLflow checks what it is given: a database that is not as
    it expects is brought up to date or refused by itself.

    Returns:
        Whether a database was put there; if not, MLflow makes its own.
    """
    if path.exists():
        return False
    try:
        template = _template()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _whole(path) as temporary:
            shutil.copyfile(template, temporary)
    except Exception as error:  # a short cut only: MLflow can do without
        logger.debug("no prepared MLflow database (%s)", error)
        return False
    return True


def _template() -> Path:
    versions = "-".join(importlib.metadata.version(package) for package in ("mlflow", "sqlalchemy", "alembic"))
    template = default_cache_dir() / f"mlflow-{versions}.db"
    if not template.is_file():
        template.parent.mkdir(parents=True, exist_ok=True)
        with _whole(template) as temporary:
            _make(temporary)
    return template


def _make(path: Path) -> None:
    import sqlalchemy
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    engine = create_sqlalchemy_engine(f"sqlite:///{path}")
    try:
        # A crash of the machine would leave half a file under a temporary name, which nobody reads.
        sqlalchemy.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
        _initialize_tables(engine)
    finally:
        engine.dispose()


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary file that becomes ``target`` in one go; of two that do so at once, the first stays."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, target)  # unlike a rename never replaces what another process has begun to use
    finally:
        temporary.unlink(missing_ok=True)
