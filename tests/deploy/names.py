"""Names of series in PromQL."""

import re

from deploy.metrics import series_names
from deploy.rules.files import GROUPS
from deploy.rules.model import Recording

# Of the Prometheus client and of Prometheus itself.
STANDARD = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "up",
}
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def known_names():
    recorded = {
        rule.name for groups in GROUPS.values() for each in groups for rule in each.rules if isinstance(rule, Recording)
    }
    return series_names() | recorded | STANDARD


def names_in(expr):
    """Returns what looks like a series of ours, or of the process, in an expression."""
    bare = re.sub(r'"[^"]*"', "", expr)
    return {
        name
        for name in _NAME.findall(bare)
        if name.startswith(("vitrine", "grpc_server_", "process_")) or name in STANDARD
    }
