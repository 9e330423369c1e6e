"""Opens what feedback needs, or says at start why it cannot."""

from __future__ import annotations

import sqlite3

from services.gateway.feedback.pseudonyms import Pseudonyms
from services.gateway.feedback.recorder import FeedbackRecorder
from services.gateway.feedback.store import FeedbackStore
from services.gateway.settings import GatewaySettings
from services.runtime.server import StartError

_DAY_SECONDS = 86_400.0


def open_feedback(settings: GatewaySettings) -> FeedbackRecorder | None:
    """Returns the recorder; None where no folder is set. Create it inside the event loop.

    Raises:
        StartError: The folder, the database or the key cannot be used.
    """
    folder = settings.data_dir
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pseudonyms = Pseudonyms.from_file(settings.feedback_key_file or folder / "feedback.key")
        store = FeedbackStore(folder / "feedback.sqlite", settings.feedback_days * _DAY_SECONDS)
    except (OSError, ValueError, sqlite3.Error) as error:
        raise StartError(f"feedback cannot be kept in {folder}: {error}") from None
    return FeedbackRecorder(store, pseudonyms, settings.feedback_queue)
