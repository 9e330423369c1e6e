"""Ranking in the gateway's settings: read as it is meant, and refused at the start where it cannot be meant."""

import pytest

from services.gateway.plugins import load_scorer, load_text_encoder
from services.gateway.settings import GatewaySettings
from services.runtime.server import StartError
from services.runtime.settings import SettingsError, load_settings
from tests.gateway.encoders import BagOfWords
from tests.gateway.test_process import start_failing
from vitrine.ranking.boosts import Boost
from vitrine.ranking.caps import Cap
from vitrine.ranking.plan import RankingPlan
from vitrine.ranking.preferences import Preferences

GOOD = """
[gateway.ranking.shop]
in_stock_attribute = "stock"
boosts = [{ filter_text = "sale = true", amount = 0.1 }]
caps = { brand = 3, seller = 1 }
diversity = 0.25
candidates = 200

[gateway.ranking.other-shop]
"""


def load(tmp_path, monkeypatch, text):
    path = tmp_path / "vitrine.toml"
    path.write_text(text)
    monkeypatch.setenv("VITRINE_CONFIG", str(path))
    return load_settings(GatewaySettings)


def test_a_plan_is_what_its_table_says(tmp_path, monkeypatch):
    settings = load(tmp_path, monkeypatch, GOOD)
    boost = Boost.parse("sale = true", 0.1, "b")
    plan = RankingPlan("stock", (boost,), (Cap("brand", 3), Cap("seller", 1)), 0.25, 200)
    assert {name: each.plan for name, each in settings.ranking.items()} == {"shop": plan, "other-shop": RankingPlan()}


BAD = {
    'colour = "red"': "colour",
    "diversity = 1.5": "less than or equal to 1",
    "candidates = 1001": "less than or equal to 1000",
    'boosts = [{ filter_text = "price <", amount = 0.1 }]': r"boosts\[0\]\.filter_text",
    'boosts = [{ filter_text = "price < 1", amount = 2.0 }]': "less than or equal to 1",
    "caps = { brand = 0 }": r"caps\[0\]\.most is 0, must be 1 to 1000",
    f'in_stock_attribute = "{"x" * 129}"': "in_stock_attribute has 129 bytes",
    'in_stock_attribute = "' + "ü" * 128 + '"': "in_stock_attribute has 256 bytes",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_table_is_named(tmp_path, monkeypatch, line):
    with pytest.raises(SettingsError, match=rf"(?s)ranking\.shop.*{BAD[line]}"):
        load(tmp_path, monkeypatch, f"[gateway.ranking.shop]\n{line}\n")


def test_a_table_needs_the_name_of_a_collection(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"ranking\.Not a name"):
        load(tmp_path, monkeypatch, '[gateway.ranking."Not a name"]\n')


def test_scorers_are_loaded_by_name():
    assert load_scorer("taste", "") is None
    assert isinstance(load_scorer("taste", "tests.gateway.scorers:create_taste"), Preferences)
    for reference, told in (
        ("tests.gateway.nothing:create", "ModuleNotFoundError"),
        ("tests.gateway.scorers:missing", "AttributeError"),
        ("tests.gateway.scorers:create_nothing", "it returned NoneType, which has no method `scores`"),
    ):
        with pytest.raises(StartError, match=told):
            load_scorer("taste", reference)


def test_text_encoders_are_loaded_by_name():
    assert load_text_encoder("text_encoder", "") is None
    assert isinstance(load_text_encoder("text_encoder", "tests.gateway.encoders:BagOfWords"), BagOfWords)
    for reference, told in (
        ("tests.gateway.nothing:create", "ModuleNotFoundError"),
        ("tests.gateway.scorers:create_taste", "it returned Preferences, which has no `async def encode`"),
        ("tests.gateway.encoders:Blocking", "it returned Blocking, which has no `async def encode`"),
        ("tests.gateway.encoders:Nameless", "it returned Nameless, which has no `fingerprint`"),
    ):
        with pytest.raises(StartError, match=told):
            load_text_encoder("text_encoder", reference)


def test_the_gateway_does_not_start_with_what_it_cannot_use(tmp_path):
    path = tmp_path / "vitrine.toml"
    path.write_text("[gateway.ranking.shop]\ndiversity = 2\n")
    outcome = start_failing(VITRINE_CONFIG=str(path))
    assert (outcome.returncode, "ranking.shop.diversity" in outcome.stderr) == (2, True), outcome.stderr
    outcome = start_failing(VITRINE_GATEWAY_FEATURES="no.such.module:create")
    assert (outcome.returncode, "features = 'no.such.module:create'" in outcome.stderr) == (2, True), outcome.stderr
    assert "Traceback" not in outcome.stderr
