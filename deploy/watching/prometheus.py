"""A Prometheus of our own that watches a stack on loopback, with the committed rules."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml

from deploy.rules.files import FOLDER
from services.local.stack import Stack

_START_SECONDS = 60.0
_ANSWER_SECONDS = 60.0


class QueryError(Exception):
    """Prometheus refuses an expression; the message is its own."""


class Series(NamedTuple):
    """One series of an answer, without its missing values."""

    labels: dict[str, str]
    points: list[tuple[float, float]]
    """Unix time and value."""


class Prometheus:
    """Scrapes every process of a stack; `async with` starts and stops it. Needs `prometheus` on the PATH."""

    def __init__(self, stack: Stack, folder: Path, *, scrape_seconds: int = 1) -> None:
        """Keeps its data under `folder`."""
        self._stack = stack
        self._folder = folder
        self._scrape_seconds = scrape_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._address = ""

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self._address}",
                "--enable-feature=exemplar-storage",
                "--log.level=warn",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await self._wait_ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()  # its data is thrown away
        await self._process.wait()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    async def query(self, expr: str) -> list[Series]:
        """Evaluates an expression now.

        Raises:
            QueryError: It is wrong.
        """
        data = await self.ask("query", query=expr)
        if data["resultType"] == "scalar":
            return [_series({}, [data["result"]])]
        return [each for entry in data["result"] if (each := _series(entry["metric"], [entry["value"]])).points]

    async def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Evaluates an expression over a time; Unix seconds.

        Raises:
            QueryError: It is wrong.
        """
        data = await self.ask("query_range", query=expr, start=str(start), end=str(end), step=str(step))
        return [each for entry in data["result"] if (each := _series(entry["metric"], entry["values"])).points]

    async def ask(self, what: str, **parameters: str) -> Any:
        """Returns the data of an answer of its HTTP API.

        Raises:
            QueryError: It refuses.
        """
        body = urllib.parse.urlencode(parameters)
        return await asyncio.to_thread(self._read, f"/api/v1/{what}?{body}")

    def _read(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://{self._address}{path}", timeout=_ANSWER_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(error.read().decode(errors="replace")) from None

    async def _wait_ready(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(_START_SECONDS):
            while True:
                if self._process.returncode is not None:
                    raise RuntimeError((self._folder / "prometheus.log").read_text())
                try:
                    await self.query("vector(1)")
                except (OSError, QueryError):
                    await asyncio.sleep(0.1)
                else:
                    return

    def _config(self) -> dict[str, Any]:
        ports = self._stack.ports
        jobs = {"gateway": [ports.gateway], "embedder": [ports.embedder], "indexer": list(ports.indexers)}
        every = f"{self._scrape_seconds}s"
        return {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(FOLDER / "rules" / "*.yaml")],
            "scrape_configs": [
                {
                    "job_name": f"vitrine-{name}",
                    "static_configs": [
                        {"targets": [f"127.0.0.1:{ports.metrics.get(port, port + 1000)}" for port in serving]}
                    ],
                }
                for name, serving in jobs.items()
            ],
        }


def _series(labels: dict[str, str], values: list[tuple[float, str]]) -> Series:
    points = [(float(time), float(value)) for time, value in values]
    return Series(labels, [(time, value) for time, value in points if math.isfinite(value)])
