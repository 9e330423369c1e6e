"""Drives the renderer: one process per model, some at a time, keeping what is already there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from examples.catalogue.angles import Angle
from examples.catalogue.library import Model

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300


def render_all(
    wanted: list[tuple[Model, dict[str, Angle]]], library: Path, renders: Path, jobs: int
) -> Iterator[tuple[Model, str]]:
    """Renders what is missing; yields each model as it is done, with the reason when it failed and "" when not."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_render, model, views, library, renders): model for model, views in wanted}
        for future in as_completed(futures):
            yield futures[future], future.result()


def render_path(renders: Path, model: Model, name: str) -> Path:
    """Where the cut-out of one picture lies."""
    return renders / model.key / f"{name}.png"


def _render(model: Model, views: dict[str, Angle], library: Path, renders: Path) -> str:
    missing = {
        str(path): angle for name, angle in views.items() if not (path := render_path(renders, model, name)).is_file()
    }
    if not missing:
        return ""
    (renders / model.key).mkdir(parents=True, exist_ok=True)
    order = {
        "model": str(library / model.path),
        "rotation": model.rotation,
        "shadow": model.elevation == 0,
        "views": missing,
    }
    command = [sys.executable, "-m", "examples.catalogue.render", json.dumps(order)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"took more than {SECONDS} s"
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    return ""
