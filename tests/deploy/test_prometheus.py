"""A real Prometheus watches a real Vitrine under load: every panel, alert and rule has data."""

import asyncio
import shutil
import time

import pytest

from deploy.dashboards.files import DASHBOARDS
from deploy.dashboards.overview import OVERVIEW
from deploy.render_overview import ask, draw
from deploy.rules.files import GROUPS, alerts
from deploy.rules.model import Recording
from deploy.watching.load import Load
from deploy.watching.prometheus import Prometheus
from tests.conftest import missing

PATIENCE = 60
SETTINGS = {
    # Small blocks, so that segments are built and merged; canaries at every turn.
    "VITRINE_INDEXER_SEGMENT_POINTS": "32",
    "VITRINE_INDEXER_CANARY_SECONDS": "0.2",
    "VITRINE_EMBEDDER_CANARY_SECONDS": "2",
}


def runnable(expr):
    """Puts values in the place of Grafana's variables."""
    expr = expr.replace("$__rate_interval", "15s").replace("$instance", ".*")
    assert "$" not in expr, expr
    return expr


def expressions():
    """What must have data: where it is from, the expression, and why it may have none."""
    for board in DASHBOARDS.values():
        for panel in board.panels():
            for query in panel.queries:
                yield f"{board.uid}: {panel.title}", runnable(query.expr), query.empty
    for alert in alerts().values():
        for signal in alert.signals:
            yield alert.name, signal, alert.silent
    for groups in GROUPS.values():
        for group in groups:
            for rule in group.rules:
                if isinstance(rule, Recording):
                    labels = ",".join(f'{name}="{value}"' for name, value in rule.labels.items())
                    yield f"recording {rule.name}", f"{rule.name}{{{labels}}}", ""


@pytest.mark.slow
@pytest.mark.timeout(400)  # most of it is waiting, longer where the machine is busy
async def test_every_panel_alert_and_rule_has_data_under_load(make_stack, tmp_path):
    if shutil.which("prometheus") is None:
        missing("prometheus")
    stack = make_stack(environment=SETTINGS)
    async with stack.supervisor:
        await stack.start()
        async with Prometheus(stack, tmp_path / "prometheus") as prometheus, Load(stack):
            await asyncio.sleep(5)
            await stack.supervisor.kill("indexer-1")  # a degraded answer, a breaker that opens
            await asyncio.sleep(4)
            await stack.supervisor.restart("indexer-1")
            waiting = list(expressions())
            without_data = {}
            async with asyncio.timeout(PATIENCE * 2):
                for _ in range(PATIENCE):
                    without_data = {}
                    for where, expr, reason in waiting:
                        if not await prometheus.query(expr):
                            without_data[where, expr] = reason
                    waiting = [each for each in waiting if each[:2] in without_data]
                    if all(without_data.values()):
                        break
                    await asyncio.sleep(1)
            # What may be empty has been looked at as long as the rest, and is still listed for a true reason.
            assert [each for each, reason in without_data.items() if not reason] == []
            listed = {(where, expr): reason for where, expr, reason in expressions() if reason}
            with_data = [each for each in listed if each not in without_data]
            assert with_data == [], "listed as empty, but it has data"
            await check_rules(prometheus)
            assert await exposes_only_known_jobs(prometheus)
            now = time.time()
            answers = await ask(prometheus, now - 30, now)
        picture = tmp_path / "overview.png"
        await asyncio.to_thread(draw(OVERVIEW, answers, now - 30, now).savefig, picture)
        assert picture.stat().st_size > 50_000


async def check_rules(prometheus):
    groups = (await prometheus.ask("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == sum(len(group.rules) for groups in GROUPS.values() for group in groups)
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


async def exposes_only_known_jobs(prometheus):
    targets = (await prometheus.ask("targets"))["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == {"vitrine-gateway", "vitrine-embedder", "vitrine-indexer"}
    return [target["lastError"] for target in targets if target["health"] != "up"] == []
