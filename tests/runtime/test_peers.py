"""How a service is told to reach those behind it."""

import pytest

from services.gateway.settings import GatewaySettings
from services.runtime.settings import SettingsError
from tests.certificates import Authority


def test_plain_text_and_nobody_is_the_default():
    credentials = GatewaySettings().peer_credentials()
    assert (credentials.tls, credentials.token) == (None, None)


def test_any_file_of_tls_means_tls(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    (tmp_path / "token").write_text("a-token-of-32-characters-0123456\n")
    credentials = GatewaySettings(
        peer_ca_file=authority.file,
        peer_cert_file=certificate,
        peer_key_file=key,
        peer_server_name="shard.shop",
        peer_token_file=tmp_path / "token",
    ).peer_credentials()
    assert credentials.tls.server_name == "shard.shop"
    assert credentials.bearer()() == "Bearer a-token-of-32-characters-0123456"
    assert GatewaySettings(peer_tls=True).peer_credentials().tls is not None


@pytest.mark.parametrize("name", ["peer_ca_file", "peer_cert_file", "peer_key_file", "peer_token_file"])
def test_files_that_cannot_be_read_stop_the_start(tmp_path, name):
    certificate, key = Authority(tmp_path).issue()
    files = {"peer_cert_file": certificate, "peer_key_file": key} if name != "peer_ca_file" else {}
    with pytest.raises(SettingsError, match="missing"):
        GatewaySettings(**files | {name: tmp_path / "missing"}).peer_credentials()
