"""A service opens no port to other machines by accident."""

import re

import pytest

from services.runtime.listening import check_listening
from services.runtime.settings import SettingsError
from tests.runtime.conftest import ExampleSettings

FILES = {"tls_cert_file": "cert.pem", "tls_key_file": "key.pem", "auth_file": "auth.toml"}


def settings(**values):
    return ExampleSettings(port=1, **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"host": "::1"},
        {"host": "localhost", "metrics_host": "127.0.0.2"},
        {"host": "0.0.0.0", "metrics_host": "0.0.0.0", **FILES},
        {"host": "0.0.0.0", "insecure_listen": True},
        {"metrics_host": "::", "insecure_metrics": True},
    ],
)
def test_what_is_safe_or_asked_for_by_name(values):
    check_listening(settings(**values))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.shop", "127.0.0.1.example.com", ""])
@pytest.mark.parametrize("missing", [["auth_file"], ["tls_cert_file", "tls_key_file"], list(FILES)])
@pytest.mark.parametrize(
    ("setting", "override", "other"),
    [("host", "insecure_listen", "insecure_metrics"), ("metrics_host", "insecure_metrics", "insecure_listen")],
)
def test_what_is_not_is_refused_and_the_way_out_named(host, missing, setting, override, other):
    given = {name: path for name, path in FILES.items() if name not in missing}
    told = f"{setting} = {host} is open to other machines: set {', '.join(missing)} (SECURITY.md says how)"
    with pytest.raises(SettingsError, match=re.escape(told)) as caught:
        check_listening(settings(**{setting: host, other: True}, **given))
    assert f"set {override} = true" in str(caught.value)


async def test_a_service_asks_before_it_opens_anything(example_settings, running):
    with pytest.raises(SettingsError, match=r"host = 0\.0\.0\.0 is open to other machines"):
        async with running(example_settings(host="0.0.0.0")):
            pass
