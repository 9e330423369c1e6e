"""The command line itself: global options, and errors as one clear line."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from vitrine.cli import (
    alias,
    attributes,
    calibrate,
    collections,
    compare,
    evaluate,
    export,
    feedback,
    ingest,
    recognize,
    reshard,
    search,
    snapshot,
    status,
    token,
)
from vitrine.cli.environment import EXIT_FAILED, EXIT_INTERRUPTED, Addresses, split_addresses
from vitrine.cli.output import errors, explain
from vitrine.credentials import Credentials, Tls

app = typer.Typer(
    name="vitrine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Visual search for shops: a photo goes in, the products that look like it come out.",
)
app.command("ingest")(ingest.ingest_command)
app.command("search")(search.search_command)
app.command("similar")(search.similar_command)
app.command("recognize")(recognize.recognize_command)
app.command("status")(status.status_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("calibrate")(calibrate.calibrate_command)
app.command("attributes")(attributes.attributes_command)
app.add_typer(collections.app, name="collections")
app.add_typer(alias.app, name="alias")
app.command("compare-collections")(compare.compare_command)
app.command("reshard")(reshard.reshard_command)
app.command("snapshot")(snapshot.snapshot_command)
app.command("export")(export.export_command)
app.command("token")(token.token_command)
app.add_typer(feedback.app, name="feedback")


@app.callback()
def configure(
    context: typer.Context,
    gateway: Annotated[
        str, typer.Option(help="Address of the gateway, host:port.", envvar="VITRINE_CLI_GATEWAY")
    ] = "127.0.0.1:50050",
    embedder: Annotated[
        str, typer.Option(help="Address of the embedder; for ingest and evaluate.", envvar="VITRINE_CLI_EMBEDDER")
    ] = "127.0.0.1:50051",
    indexers: Annotated[
        str,
        typer.Option(
            help="Addresses of the index shards, in shard order, separated by commas; for all but search, similar, "
            "recognize and status.",
            envvar="VITRINE_CLI_INDEXERS",
        ),
    ] = "127.0.0.1:50060,127.0.0.1:50061",
    token_file: Annotated[
        Path | None,
        typer.Option(help="File that holds your token; sent over TLS, or to loopback.", envvar="VITRINE_TOKEN_FILE"),
    ] = None,
    tls: Annotated[
        bool,
        typer.Option("--tls", help="Speak TLS, trusting the usual authorities.", envvar="VITRINE_TLS"),
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Speak TLS, trusting the authorities in this PEM file.", envvar="VITRINE_TLS_CA_FILE"),
    ] = None,
    cert_file: Annotated[
        Path | None,
        typer.Option(help="Your certificate, for services that want one (mTLS).", envvar="VITRINE_TLS_CERT_FILE"),
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="Its private key.", envvar="VITRINE_TLS_KEY_FILE")] = None,
) -> None:
    """Visual search for shops: a photo goes in, the products that look like it come out."""
    speak_tls = tls or ca_file is not None or cert_file is not None or key_file is not None
    context.obj = Addresses(
        gateway,
        embedder,
        split_addresses(indexers, "--indexers"),
        Credentials(Tls(ca_file, cert_file, key_file) if speak_tls else None, token_file),
    )


def main() -> None:
    """Runs the command; exits with 0, 1 (done, but not everything), 2 (could not), or 130 (interrupted)."""
    # A job that is told to end cleans up as one that is interrupted; also where it was started in the background, with
    # SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        app()
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:
            errors.print("interrupted")
        raise
    except BaseExceptionGroup as group:
        _fail(_innermost(group))
    except Exception as error:
        _fail(error)


def _fail(error: BaseException) -> None:
    line = explain(error)
    if line is None:
        raise error
    errors.print(f"[red]error:[/] {line}", highlight=False, soft_wrap=True)
    sys.exit(EXIT_FAILED)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
