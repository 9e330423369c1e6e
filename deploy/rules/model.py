"""What a rule is, and what becomes of it in a Prometheus rule file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RUNBOOKS = "docs/runbooks"


@dataclass(frozen=True)
class Recording:
    """A series that Prometheus works out and stores."""

    name: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)

    def to_rule(self) -> dict[str, Any]:
        """Returns the rule, as a rule file has it."""
        return {"record": self.name, "expr": self.expr} | ({"labels": self.labels} if self.labels else {})


@dataclass(frozen=True)
class Alert:
    """A state that somebody must look at."""

    name: str
    severity: str
    """`page`: users hurt, or will within hours; somebody gets up. `ticket`: within a day or two."""
    signals: tuple[str, ...]
    """Expressions that always have data where Vitrine runs, whether or not the alert fires."""
    condition: str
    """PromQL in which {0}, {1}, ... stand for the signals; it has data while the alert fires."""
    summary: str
    description: str
    runbook: str
    """Name of its page, without `.md`."""
    lasting: str = "0m"
    silent: str = ""
    """Why a signal may be without data on a sound Vitrine; empty: it may not."""

    @property
    def expr(self) -> str:
        """The whole expression."""
        # `or` binds weaker than a comparison: unbracketed, what is left of it would always fire.
        return self.condition.format(*(f"({each})" if " or " in each else each for each in self.signals))

    def annotations(self) -> dict[str, str]:
        """Returns the annotations, with templates."""
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{RUNBOOKS}/{self.runbook}.md",
        }

    def to_rule(self) -> dict[str, Any]:
        """Returns the rule, as a rule file has it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": self.annotations(),
        }


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated together, in their order."""

    name: str
    rules: tuple[Recording | Alert, ...]
    interval: str = ""

    def to_group(self) -> dict[str, Any]:
        """Returns the group, as a rule file has it."""
        interval = {"interval": self.interval} if self.interval else {}
        return {"name": self.name, **interval, "rules": [rule.to_rule() for rule in self.rules]}
