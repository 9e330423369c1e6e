"""The settings reference is complete, current and loadable."""

import tomllib

from deploy.reference import REFERENCE, SECTIONS, render
from services.runtime.settings import load_settings


def test_the_committed_reference_is_current():
    assert REFERENCE.read_text() == render(), "run `python -m deploy.reference`"


def test_every_setting_is_described():
    bare = [
        f"{kind.section}.{name}"
        for kind in SECTIONS
        for name, each in kind.model_fields.items()
        if not each.description
    ]
    assert bare == []


def test_the_reference_itself_is_a_valid_configuration(monkeypatch):
    monkeypatch.setenv("VITRINE_CONFIG", str(REFERENCE))
    document = tomllib.loads(REFERENCE.read_text())
    for kind in SECTIONS:
        settings = load_settings(kind)
        assert set(document[kind.section]) <= set(kind.model_fields)
        assert settings == kind(**document[kind.section])
