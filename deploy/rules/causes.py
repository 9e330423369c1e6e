"""Alerts on what will hurt users soon, and on what explains why they hurt now; all but the last resorts are tickets."""

from __future__ import annotations

from deploy.rules.model import Alert, Group
from deploy.rules.saturation import NAME as SATURATION

_DISK_LEFT = "vitrine_indexer_disk_free_bytes / vitrine_indexer_disk_size_bytes"

PROCESSES = Group(
    "vitrine-processes",
    (
        Alert(
            name="NothingServes",
            severity="page",
            signals=(
                "sum by (job) (vitrine_serving)",
                'count by (job) (up{job=~"vitrine-.+"})',
            ),
            condition="({0} == 0) or ({1} unless on (job) {0})",
            lasting="1m",
            summary="No process of {{ $labels.job }} serves.",
            description="All processes of {{ $labels.job }} are away, or say of themselves that they cannot serve. "
            "Without a gateway or an embedder no photo finds anything.",
            runbook="nothing-serves",
        ),
        Alert(
            name="ProcessDown",
            severity="ticket",
            signals=('up{job=~"vitrine-.+"}',),
            condition="{0} == 0",
            lasting="5m",
            summary="{{ $labels.job }} on {{ $labels.instance }} is down.",
            description="Prometheus has not reached {{ $labels.instance }} for five minutes. Others carry its load; "
            "of a shard, its products are missing from every answer.",
            runbook="process-down",
        ),
        Alert(
            name="NotServing",
            severity="ticket",
            signals=("vitrine_serving",),
            condition="{0} == 0",
            lasting="5m",
            summary="{{ $labels.job }} on {{ $labels.instance }} runs, but does not serve.",
            description="For five minutes {{ $labels.instance }} has told health checks NOT_SERVING: it drains, or it "
            "cannot do its work.",
            runbook="not-serving",
        ),
        Alert(
            name="EventLoopBlocked",
            severity="ticket",
            signals=(
                "histogram_quantile(0.99, "
                "sum by (job, instance, le) (rate(vitrine_event_loop_lag_seconds_bucket[5m])))",
            ),
            condition="{0} > 0.25",
            lasting="10m",
            summary="The event loop of {{ $labels.job }} on {{ $labels.instance }} is blocked.",
            description="One in a hundred wake-ups comes more than a quarter of a second late: something runs on the "
            "event loop that should not, or the machine has no processor time left.",
            runbook="event-loop-blocked",
        ),
        Alert(
            name="SettingsNotReloaded",
            severity="ticket",
            signals=('sum by (job, instance) (increase(vitrine_settings_reloads_total{result="failed"}[1h]))',),
            condition="{0} > 0",
            summary="{{ $labels.job }} on {{ $labels.instance }} refused its new settings.",
            description="After a SIGHUP the settings could not be used; it goes on with the old ones, and the next "
            "start would fail.",
            runbook="settings-not-reloaded",
            silent="counted from the first reload on",
        ),
        Alert(
            name="SecretNotReloaded",
            severity="ticket",
            signals=('sum by (job, instance, secret) (increase(vitrine_secret_reloads_total{result="failed"}[1h]))',),
            condition="{0} > 0",
            summary="{{ $labels.job }} on {{ $labels.instance }} refused its new {{ $labels.secret }} files.",
            description="The certificate (tls) or the identities (auth) changed and could not be used; it goes on with "
            "the old ones, and the next start would fail.",
            runbook="settings-not-reloaded",
            silent="counted from the first reload on",
        ),
        Alert(
            name="CertificateExpires",
            severity="ticket",
            signals=("vitrine_tls_certificate_expires_timestamp_seconds",),
            condition="({0} > 0) - time() < 14 * 86400",
            summary="The certificate of {{ $labels.job }} on {{ $labels.instance }} expires within two weeks.",
            description="Once it has, nobody can connect to {{ $labels.instance }} any more.",
            runbook="certificate-expires",
        ),
    ),
)

FULL = Group(
    "vitrine-full",
    (
        Alert(
            name="Saturated",
            severity="ticket",
            signals=(f'max by (job, instance, resource) ({SATURATION}{{resource!~"disk|memory"}})',),
            condition="{0} > 0.9",
            lasting="15m",
            summary="{{ $labels.resource }} of {{ $labels.instance }} is full.",
            description="More than 90 % of {{ $labels.resource }} ({{ $labels.job }}, {{ $labels.instance }}) has been "
            "in use for a quarter of an hour: the next peak will be refused or slow.",
            runbook="saturated",
        ),
        Alert(
            name="MemoryNearlyFull",
            severity="ticket",
            signals=(f'max by (job, instance) ({SATURATION}{{resource="memory"}})',),
            condition="{0} > 0.9",
            lasting="10m",
            summary="{{ $labels.instance }} has little memory left.",
            description="{{ $labels.job }} on {{ $labels.instance }} uses more than 90 % of the memory it may use; "
            "past that the kernel kills it.",
            runbook="memory-nearly-full",
        ),
        Alert(
            name="Overloaded",
            severity="ticket",
            signals=(
                "sum by (job, instance) (rate(vitrine_rpcs_shed_total[5m])) or sum by (job, instance) "
                '(rate(vitrine_embedder_dropped_total{priority="interactive",reason!="cancelled"}[5m]))',
            ),
            condition="{0} > 0",
            lasting="10m",
            summary="{{ $labels.job }} on {{ $labels.instance }} turns work away.",
            description="For ten minutes calls or images were refused, with advice to retry, because queues or the "
            "limit of calls in flight were full.",
            runbook="overloaded",
            silent="counted from the first refusal on",
        ),
        Alert(
            name="DiskFullInDays",
            severity="ticket",
            signals=("predict_linear(vitrine_indexer_disk_free_bytes[6h], 4 * 86400)", _DISK_LEFT),
            condition="{0} < 0 and {1} < 0.4",
            lasting="1h",
            summary="The disk of {{ $labels.instance }} will be full within four days.",
            description="If it goes on filling as in the last six hours. A shard with a full disk refuses writes; it "
            "goes on answering searches.",
            runbook="disk-full",
        ),
        Alert(
            name="DiskFullInHours",
            severity="page",
            signals=("predict_linear(vitrine_indexer_disk_free_bytes[1h], 4 * 3600)", _DISK_LEFT),
            condition="({0} < 0 and {1} < 0.2) or {1} < 0.05",
            lasting="10m",
            summary="The disk of {{ $labels.instance }} will be full within four hours, or nearly is.",
            description="If it goes on filling as in the last hour, or less than 5 % is free. A shard with a full disk "
            "refuses writes; it goes on answering searches.",
            runbook="disk-full",
        ),
    ),
)

PARTS = Group(
    "vitrine-parts",
    (
        Alert(
            name="BreakerOpen",
            severity="ticket",
            signals=("max by (job, instance, shard) (vitrine_gateway_breaker_state)",),
            condition="{0} == 2",
            lasting="2m",
            summary="{{ $labels.instance }} does not ask shard {{ $labels.shard }} any more.",
            description="Shard {{ $labels.shard }} failed again and again, so the gateway on {{ $labels.instance }} "
            "skips it: every answer lacks its products.",
            runbook="breaker-open",
        ),
        Alert(
            name="ModelDoesNotAnswer",
            severity="page",
            signals=("max by (job, model) (vitrine_embedder_model_healthy)",),
            condition="{0} == 0",
            lasting="1m",
            summary="No embedder gets a batch through {{ $labels.model }}.",
            description="Neither batches nor, without any, canaries went through {{ $labels.model }} lately on any "
            "embedder: no new photo can be searched by.",
            runbook="model-does-not-answer",
        ),
        Alert(
            name="NoRecentBatch",
            severity="ticket",
            signals=('sum by (job, instance, model) (increase(vitrine_embedder_batches_total{result="ok"}[10m]))',),
            condition="{0} == 0",
            lasting="5m",
            summary="{{ $labels.instance }} has run no batch of {{ $labels.model }} for ten minutes.",
            description="Without work of others an embedder sends itself canaries; this one does not even do that.",
            runbook="no-recent-batch",
        ),
        Alert(
            name="SharedCacheDown",
            severity="ticket",
            signals=("max by (job, instance) (vitrine_embedder_cache_redis_up)",),
            condition="{0} == 0 and on (job, instance) "
            "(sum by (job, instance) (increase(vitrine_embedder_cache_redis_failures_total[10m])) > 0)",
            lasting="10m",
            summary="{{ $labels.instance }} cannot reach the shared cache of vectors.",
            description="Every replica computes what another has computed already. Nothing else is wrong.",
            runbook="shared-cache-down",
        ),
        Alert(
            name="IngestionFails",
            severity="ticket",
            signals=("sum by (job, instance) (rate(vitrine_embedder_ingest_items_total[15m]))",),
            condition='sum by (job, instance) (rate(vitrine_embedder_ingest_items_total{{code!="OK"}}[15m])) '
            "/ ({0} > 0) > 0.1",
            lasting="15m",
            summary="More than a tenth of the catalogue items sent to {{ $labels.instance }} fail.",
            description="Jobs list what failed and why; the codes are on the ingestion dashboard.",
            runbook="ingestion-fails",
        ),
        Alert(
            name="SegmentBuildsFail",
            severity="ticket",
            signals=("increase(vitrine_indexer_build_failures_total[30m])",),
            condition="{0} > 2",
            lasting="5m",
            summary="{{ $labels.instance }} cannot build segments.",
            description="What was written stays searchable, but is searched exactly: searches get slower with every "
            "block.",
            runbook="segment-builds-fail",
        ),
        Alert(
            name="SegmentDamaged",
            severity="ticket",
            signals=("increase(vitrine_indexer_damaged_segments_total[1h])",),
            condition="{0} > 0",
            summary="{{ $labels.instance }} found a damaged file.",
            description="It set the segment aside and builds it anew from the points; nothing is lost. Files do not "
            "damage themselves: look at the disk.",
            runbook="segment-damaged",
        ),
        Alert(
            name="TextIndexFails",
            severity="ticket",
            signals=("sum by (job, instance) (increase(vitrine_indexer_text_failures_total[30m]))",),
            condition="{0} > 5 or sum by (job, instance) "
            '(increase(vitrine_indexer_text_rebuilds_total{{reason="damaged"}}[30m])) > 2',
            lasting="5m",
            summary="The full-text index of {{ $labels.instance }} cannot be kept up to date.",
            description="Its process, or its file, fails again and again. Searches by words wait for it, and in the "
            "end lack what this shard holds; searches by picture do not notice.",
            runbook="text-index-fails",
        ),
    ),
)
