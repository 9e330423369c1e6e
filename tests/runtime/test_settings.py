"""Settings: sources in order, and every mistake found before anything starts."""

from typing import ClassVar

import pytest
from pydantic import Field

from services.runtime.settings import AddressList, ServiceSettings, SettingsError, load_settings


class SampleSettings(ServiceSettings):
    section: ClassVar[str] = "sample"
    port: int = Field(50099, ge=1, le=65535)
    peers: AddressList = Field(["127.0.0.1:1"])


def test_defaults_then_file_then_environment(tmp_path, monkeypatch):
    config = tmp_path / "vitrine.toml"
    config.write_text('[sample]\nport = 1234\nhost = "127.0.0.2"\npeers = ["a:1", "b:2"]\n[other]\nport = 9\n')
    monkeypatch.setenv("VITRINE_CONFIG", str(config))
    monkeypatch.setenv("VITRINE_SAMPLE_PORT", "4321")
    settings = load_settings(SampleSettings)
    assert (settings.port, settings.host, settings.peers) == (4321, "127.0.0.2", ["a:1", "b:2"])
    assert settings.resolved_metrics_port == 5321
    assert settings.drain_seconds == SampleSettings.model_fields["drain_seconds"].default


def test_address_lists_are_comma_separated(monkeypatch):
    monkeypatch.setenv("VITRINE_SAMPLE_PEERS", "x:1, y:2,")
    assert load_settings(SampleSettings).peers == ["x:1", "y:2"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("VITRINE_SAMPLE_PORT", "70000", "port: .*65535.*70000"),
        ("VITRINE_SAMPLE_PORT", "many", "port: .*integer.*many"),
        ("VITRINE_SAMPLE_LOG_LEVEL", "loud", "log_level: .*loud"),
        ("VITRINE_SAMPLE_PROT", "1", "unknown settings.*VITRINE_SAMPLE_PROT"),
    ],
)
def test_a_bad_variable_is_named(monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"(?s){told}"):
        load_settings(SampleSettings)


@pytest.mark.parametrize(
    ("content", "told"),
    [("[sample]\nprot = 1", "prot"), ("sample = 3", "must be a table"), ("[sample", "vitrine.toml")],
)
def test_a_bad_file_is_named(tmp_path, monkeypatch, content, told):
    config = tmp_path / "vitrine.toml"
    config.write_text(content)
    monkeypatch.setenv("VITRINE_CONFIG", str(config))
    with pytest.raises(SettingsError, match=told):
        load_settings(SampleSettings)


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings(SampleSettings)
