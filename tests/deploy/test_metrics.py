"""docs/metrics.md is what the code defines, and labels are bounded."""

from deploy.metrics import LABELS, PAGE, described, render


def test_the_committed_page_is_current():
    assert PAGE.read_text() == render(), "run `python -m deploy.metrics`"


def test_every_metric_is_named_and_described_as_the_others():
    for service, metrics in described().items():
        for each in metrics:
            assert each.help.endswith("."), each.name
            if service != "runtime":
                assert each.name.startswith((f"vitrine_{service}_", "vitrine_http_")), each.name
            assert each.kind != "histogram" or len(each.buckets) >= 5, each.name


def test_every_label_says_what_bounds_it_and_no_other_does():
    used = {label for metrics in described().values() for each in metrics for label in each.labels}
    assert used == set(LABELS)
