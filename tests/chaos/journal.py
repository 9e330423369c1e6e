"""What callers saw: one line for each call, from beginning to end."""

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """One call. Times are of the monotonic clock; `code` is `OK` or a gRPC status code's name."""

    kind: str
    began: float
    ended: float
    code: str
    coverage: tuple[int, int] | None = None
    degraded: tuple[str, ...] = ()
    message: str = ""

    @property
    def seconds(self):
        return self.ended - self.began

    @property
    def whole(self):
        return self.code == "OK" and self.coverage[0] == self.coverage[1] and not self.degraded


@dataclass
class Journal:
    """All calls of a load, in the order in which they ended."""

    calls: list[Call] = field(default_factory=list)

    def add(self, kind, began, code, *, coverage=None, degraded=(), message=""):
        self.calls.append(Call(kind, began, time.monotonic(), code, coverage, tuple(degraded), message))

    def since(self, moment):
        """Calls that began at that time or later."""
        return [each for each in self.calls if each.began >= moment]

    def codes(self, moment=0.0, kinds=()):
        """How many calls since then ended with which code."""
        return Counter(each.code for each in self.since(moment) if not kinds or each.kind in kinds)

    def failed(self, moment=0.0):
        return [each for each in self.since(moment) if each.code != "OK"]
