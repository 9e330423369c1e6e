"""Settings of a service: defaults, then a TOML file, then the environment; checked before anything starts."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

CONFIG_VARIABLE = "VITRINE_CONFIG"


class SettingsError(Exception):
    """Settings that cannot work; the message lists every one with its name and what is wrong."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


AddressList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
"""`host:port` addresses; in the environment separated by commas."""

PathList = Annotated[list[Path], NoDecode, BeforeValidator(_split)]
"""Folders or files; in the environment separated by commas."""


class ServiceSettings(BaseSettings):
    """What every service can be told.

    A subclass sets `section`: its table in the TOML file and, in capitals, its environment prefix, so that `port`
    of the section `embedder` is `VITRINE_EMBEDDER_PORT` or `[embedder] port = ...`.
    """

    section: ClassVar[str]

    model_config = SettingsConfigDict(extra="forbid", validate_default=True, frozen=True)

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Any but loopback needs tls_cert_file, tls_key_file and auth_file.",
    )
    port: int = Field(ge=1, le=65535, description="gRPC port.")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of the Prometheus endpoint /metrics; unset: port + 1000."
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address of the Prometheus endpoint: plain HTTP on loopback. Elsewhere it speaks TLS with the "
        "service's certificate and wants a token with the scope metrics, unless insecure_metrics is set.",
    )
    health_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Another gRPC port, in plain text, that answers health checks and nothing else: for probes that "
        "cannot speak TLS, as those of Kubernetes. Unset: none.",
    )
    tls_cert_file: Path | None = Field(
        None,
        description="PEM file with the certificate chain of this service. Set, with tls_key_file: the gRPC port speaks "
        "TLS. Read again when it changes: new connections get the new one.",
    )
    tls_key_file: Path | None = Field(None, description="PEM file with the private key of tls_cert_file.")
    tls_client_ca_file: Path | None = Field(
        None,
        description="PEM file with the authorities that may vouch for callers. Set: every gRPC connection must show a "
        "certificate of theirs (mTLS); auth_file says which of them may do what.",
    )
    auth_file: Path | None = Field(
        None,
        description="TOML file of those who may call, by the sha256 of their token or the name in their certificate, "
        "and of what they may do (SECURITY.md). Read again when it changes. Unset: everyone may do everything.",
    )
    insecure_listen: bool = Field(
        False,
        description="Listen where other machines can connect without TLS or without auth_file. Only where something "
        "else keeps strangers out, such as a service mesh: who can connect can read and delete everything.",
    )
    insecure_metrics: bool = Field(
        False,
        description="The same for metrics_host: plain HTTP, for everyone who can connect. Metrics name collections "
        "and say how much is going on, nothing of what is searched.",
    )
    reflection: bool = Field(
        True,
        description="Answer gRPC reflection, so that grpcurl works without the proto files. It shows the published "
        "contracts and nothing else, and asks nobody who they are.",
    )
    max_connections: int = Field(
        1_024,
        ge=1,
        le=1_000_000,
        description="Connections to the gRPC port; further ones are closed at once. Each costs a socket and its "
        "buffers.",
    )
    max_streams_per_connection: int = Field(
        1_024,
        ge=1,
        le=65_536,
        description="Calls at a time on one connection; its further ones wait at the caller. Below "
        "max_concurrent_rpcs, callers with one connection wait instead of being refused.",
    )
    max_metadata_bytes: int = Field(
        16 * 2**10,
        ge=4 * 2**10,
        le=2**20,
        description="Metadata (headers) of one call, all of it together; more is refused.",
    )
    max_connection_idle_seconds: float = Field(
        900.0, ge=1, le=86_400, description="A connection without calls is closed after this long."
    )
    max_message_bytes: int = Field(
        32 * 2**20,
        ge=2**20,
        le=2**30,
        description="Largest gRPC message accepted. Higher admits larger batches and costs memory per call.",
    )
    max_concurrent_rpcs: int = Field(
        256,
        ge=1,
        le=65536,
        description="Calls in flight before further ones are refused with RESOURCE_EXHAUSTED and retry advice.",
    )
    multiplex: bool = Field(
        True,
        description="Let calls come many on one stream, which costs a half or less. Off: clients make them one by one, "
        "as a proxy may need it that balances or times single calls.",
    )
    max_connection_age_seconds: float = Field(
        300.0,
        ge=0,
        le=86400,
        description="Age at which a client is asked to connect anew, so that calls spread over new replicas; what is "
        "under way goes on. Shorter spreads sooner and connects more often; 0: never.",
    )
    default_deadline_seconds: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Deadline of unary calls that arrive without one (and the longest granted).",
    )
    drain_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=300,
        description="Wait between reporting not-serving and refusing calls, for load balancers to notice. gRPC clients "
        "that hold a connection to every replica need none: they are told on the connection. Where somebody else "
        "chooses the replica (Kubernetes Services, a proxy), as long as that takes to notice.",
    )
    drain_seconds: float = Field(
        20.0,
        ge=0,
        le=600,
        description="Longest wait for calls in flight when stopping; then they are cancelled.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, json elsewhere."
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^\s/]+)?$",
        description="Where to send traces, an OTLP collector's gRPC port: http://host:4317, https:// for TLS. Empty: "
        "no traces, and nothing of OpenTelemetry is loaded.",
    )
    trace_sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the calls that are traced, where the caller's W3C trace context does not decide it. "
        "More: slow calls are found in the traces, for about 0.05 ms of processor time for each span; a search on two "
        "shards has about twenty over all services.",
    )

    @model_validator(mode="before")
    @classmethod
    def _hide_secrets(cls, values: Any) -> Any:
        """Errors quote what they were given: the whole of it where settings contradict each other."""
        if isinstance(values, dict):
            for name, value in values.items():
                field = cls.model_fields.get(name)
                if field is not None and field.annotation is SecretStr and isinstance(value, str):
                    values[name] = SecretStr(value)
        return values

    @property
    def resolved_metrics_port(self) -> int:
        """The port of the Prometheus endpoint."""
        return self.metrics_port or self.port + 1000

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: arguments, environment, TOML file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _toml_section(cls.section))


Settings = TypeVar("Settings", bound=ServiceSettings)


def load_settings(kind: type[Settings], **overrides: Any) -> Settings:
    """Reads and checks the settings of a service.

    Raises:
        SettingsError: A value is wrong, a name is unknown, or the file cannot be read.
    """
    prefix = f"VITRINE_{kind.section.upper()}_"
    known = {f"{prefix}{name}".upper() for name in kind.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(prefix) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown settings in the environment: {', '.join(unknown)}")
    try:
        return kind(_env_prefix=prefix, **overrides)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, each['loc']))}: {each['msg']} (got {each['input']!r})" for each in error.errors()
        ]
        raise SettingsError(f"bad {kind.section} settings:\n" + "\n".join(lines)) from None


def _toml_section(section: str) -> dict[str, Any]:
    location = os.environ.get(CONFIG_VARIABLE)
    if not location:
        return {}
    try:
        document = tomllib.loads(Path(location).read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}={location}: {error}") from None
    table = document.get(section, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{CONFIG_VARIABLE}={location}: [{section}] must be a table")
    return table
