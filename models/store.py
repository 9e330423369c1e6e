"""Puts finished model folders in place: all files of one model appear together or not at all."""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.card import CARD_FILE, CardError, File, ModelCard, load_card


def file_entry(name: str, data: bytes) -> File:
    """Describe a file beside the card by its name and the sha256 of its bytes."""
    return File(file=name, sha256=hashlib.sha256(data).hexdigest())


def is_current(folder: Path, card: ModelCard) -> bool:
    """Whether `folder` already holds exactly this card and every file it names is intact."""
    try:
        found = load_card(folder)
        found.verify(folder)
    except CardError:
        return False
    return found == card


def publish(folder: Path, card: ModelCard, files: dict[str, bytes]) -> None:
    """Write `files` and the card to `folder`, replacing what is there. Safe against other builders of the same folder.

    Everything is written and verified in a temporary folder first. A reader that opens the folder in the instant
    between the two renames finds no folder, never a mixture.

    Raises:
        OSError: the folder cannot be written.
        CardError: the files do not match the card.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent / f".{folder.name}.lock"):
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            fresh.chmod(0o755)
            for name, data in files.items():
                (fresh / name).write_bytes(data)
            (fresh / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
            load_card(fresh).verify(fresh)
            if folder.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
                folder.rename(old)
                shutil.rmtree(old)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel drops it if the process dies."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
