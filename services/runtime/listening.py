"""Where a service may listen: on loopback freely, elsewhere only with TLS and known callers, or when told to."""

from __future__ import annotations

from services.runtime.settings import ServiceSettings, SettingsError
from vitrine.loopback import is_loopback_host


def check_listening(settings: ServiceSettings) -> None:
    """Refuses what would let strangers in.

    Raises:
        SettingsError: A port would be open to other machines without TLS and `auth_file`.
    """
    missing = [
        name
        for name, value in (
            ("tls_cert_file", settings.tls_cert_file),
            ("tls_key_file", settings.tls_key_file),
            ("auth_file", settings.auth_file),
        )
        if value is None
    ]
    if not missing:
        return
    for setting, host, override, allowed in (
        ("host", settings.host, "insecure_listen", settings.insecure_listen),
        ("metrics_host", settings.metrics_host, "insecure_metrics", settings.insecure_metrics),
    ):
        if not is_loopback_host(host) and not allowed:
            raise SettingsError(
                f"{setting} = {host} is open to other machines: set {', '.join(missing)} (SECURITY.md says how), "
                f"listen on 127.0.0.1, or set {override} = true where something else keeps strangers out"
            )
