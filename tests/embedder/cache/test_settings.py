"""Which settings are refused, and that no refusal repeats the password."""

import pytest
from structlog.testing import capture_logs

from services.embedder.cache.redis_address import RedisAddress
from services.embedder.settings import EmbedderSettings
from services.runtime.settings import SettingsError, load_settings

SECRET = "hunter2"
URLS = {
    "scheme": f"http://:{SECRET}@host",
    "slash in the password": f"redis://:{SECRET}/x@host:6379",
    "question mark in the password": f"redis://:x?{SECRET}=1@host",
    "option": f"redis://:{SECRET}@host?nonsense=1",
    "option's value": f"redis://:{SECRET}@host?socket_timeout=never",
    "certificates": f"rediss://:{SECRET}@host?ssl_ca_certs=/nowhere/ca.pem",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS.keys())
def test_a_redis_url_that_cannot_be_used_stops_the_start_without_being_quoted(url, monkeypatch):
    monkeypatch.setenv("VITRINE_EMBEDDER_CACHE_REDIS_URL", url)
    with pytest.raises(SettingsError) as caught:
        load_settings(EmbedderSettings)
    assert "cache_redis_url" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_another_settings_error_does_not_quote_the_password_either(monkeypatch):
    monkeypatch.setenv("VITRINE_EMBEDDER_CACHE_REDIS_URL", f"redis://:{SECRET}@host")
    monkeypatch.setenv("VITRINE_EMBEDDER_CUDA_GRAPHS", "true")
    with pytest.raises(SettingsError, match="cuda_graphs") as caught:
        load_settings(EmbedderSettings)
    assert SECRET not in str(caught.value)


def test_the_password_is_in_no_text_that_the_settings_give(monkeypatch):
    monkeypatch.setenv("VITRINE_EMBEDDER_CACHE_REDIS_URL", f"redis://user:{SECRET}@host:1234/2")
    settings = load_settings(EmbedderSettings)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    with capture_logs() as logs:
        address = RedisAddress(settings.cache_redis_url)
        assert SECRET not in f"{logs} {address.name} {address.connection()!r}"
    assert address.name == "host:1234"
    assert address.connection().password == SECRET


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://host", "host:6379"),
        ("redis://user:p%40ss@host:1/3", "host:1"),
        ("rediss://host:2", "host:2"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
    ],
)
def test_urls_that_can_be_used(url, name):
    assert RedisAddress(EmbedderSettings(cache_redis_url=url).cache_redis_url).name == name


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cache_memory_bytes", -1),
        ("cache_redis_timeout_seconds", 0),
        ("cache_redis_lock_seconds", 0),
        ("cache_ttl_seconds", 0),
    ],
)
def test_values_out_of_bounds_stop_the_start(setting, value):
    with pytest.raises(SettingsError, match=setting):
        load_settings(EmbedderSettings, **{setting: value})
