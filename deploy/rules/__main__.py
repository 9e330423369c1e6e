"""`python -m deploy.rules` writes deploy/prometheus/rules and deploy/prometheus/tests."""

from __future__ import annotations

from deploy.rules.files import FILES

for path, render in FILES.items():
    path.write_text(render())
    print(f"wrote {path}")
