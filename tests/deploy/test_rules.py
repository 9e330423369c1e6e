"""The committed rules are what the code gives; promtool checks them and runs their unit tests; each has a runbook."""

import shutil
import subprocess

import pytest

from deploy.metrics import ROOT
from deploy.rules.cases import CASES
from deploy.rules.files import FILES, FOLDER, GROUPS, alerts
from tests.conftest import missing
from tests.deploy.names import known_names, names_in

RUNBOOKS = ROOT / "docs" / "runbooks"
SECTIONS = ("## What it means", "## What to look at", "## What to do")


@pytest.fixture
def promtool():
    """Runs promtool; what it prints."""
    if shutil.which("promtool") is None:
        missing("prometheus")

    def run(*arguments):
        done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_committed_files_are_current():
    for path, render in FILES.items():
        assert path.read_text() == render(), "run `python -m deploy.rules`"
    assert set(FILES) == {*FOLDER.glob("rules/*"), *FOLDER.glob("tests/*")}


def test_prometheus_takes_the_rules_and_the_example(promtool):
    told = promtool("check", "rules", *sorted(FOLDER.glob("rules/*.yaml")))
    count = sum(len(group.rules) for groups in GROUPS.values() for group in groups)
    assert sum(int(line.split()[1]) for line in told.splitlines() if line.strip().startswith("SUCCESS:")) == count
    promtool("check", "config", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("tests/*.yaml")), ids=lambda path: path.stem)
def test_alerts_fire_where_they_must_and_are_silent_where_they_must_not(promtool, path):
    assert "SUCCESS" in promtool("test", "rules", path)


def test_every_alert_is_seen_firing_and_seen_silent():
    assert {case.alert for case in CASES if case.fires} == set(alerts())
    assert {case.alert for case in CASES if not case.fires} == set(alerts())


@pytest.mark.parametrize("alert", alerts().values(), ids=lambda alert: alert.name)
def test_every_alert_says_what_it_is_and_has_a_runbook(alert):
    assert alert.severity in ("page", "ticket")
    annotations = alert.annotations()
    assert all(annotations.values())
    text = (ROOT / annotations["runbook_url"]).read_text()
    assert [line for line in text.splitlines() if line in SECTIONS] == list(SECTIONS)
    assert f"`{alert.name}`" in text


def test_there_is_no_runbook_without_an_alert():
    wanted = {f"{alert.runbook}.md" for alert in alerts().values()} | {"README.md"}
    assert {path.name for path in RUNBOOKS.glob("*.md")} == wanted


def test_every_series_in_a_rule_is_exported_or_recorded():
    for groups in GROUPS.values():
        for group in groups:
            for rule in group.rules:
                assert names_in(rule.expr) <= known_names(), rule.name
