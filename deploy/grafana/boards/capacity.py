"""What the server spends its time and memory on, and how much of either is left."""

from __future__ import annotations

from deploy.grafana.panels import Board, Panel, Query, Row, mean, per_second, quantiles


def _share(part: str, whole: str, by: str) -> str:
    return f"{per_second(part, by)} / {per_second(whole, by)}"


QUEUE = Row("Queue and engine", (
    Panel(
        "Engine busy", "percentunit",
        "Share of time that the engine's thread computes. At 1 it is saturated and the queue "
        "grows: add replicas, or look below at what takes the time.",
        (Query("rate(sailplane_engine_busy_seconds_total{$on}[$__rate_interval])",
               "{{instance}}"),), width=8, most=1,
    ),
    Panel(
        "Samples waiting", "short",
        "Samples in the queue, and how many it takes before it refuses with 503 (max_queue).",
        (Query("sailplane_queue_samples{$on}", "{{instance}}"),
         Query("max(sailplane_queue_limit_samples{$on})", "limit")), width=8,
    ),
    Panel(
        "Wait in the queue", "s",
        "From arrival to a batch. Longer than a batch takes: more comes in than is answered.",
        quantiles("queue_wait_seconds"), width=8,
    ),
    Panel(
        "Batch size", "short",
        "Samples answered in one pass. Always at max_batch: the engine is saturated, and a larger "
        "max_batch may help. 1 under load: clients ask one after the other.",
        (*quantiles("batch_samples", levels=(0.5, 0.99)), mean("batch_samples")), width=8,
    ),
    Panel(
        "Time of a batch", "s",
        "Engine time of a batch. It rises with its samples and their length.",
        quantiles("batch_seconds"), width=8,
    ),
    Panel(
        "Samples and tokens", "short",
        "Samples answered and tokens read a second, over all servers. More tokens a sample than "
        "before explain a slower engine.",
        (Query(per_second("batch_samples_sum"), "samples"),
         Query(per_second("input_tokens_total"), "tokens")), width=8,
    ),
))  # fmt: skip

STAGES = Row("Time per stage", (
    Panel(
        "Where the time goes", "s",
        "Seconds a second spent in each stage. forward should be the most. load: experts come "
        "from disk, see the tiers. select: a large library, see docs/library.md. embed: new "
        "instructions and inputs, which the feature stores will know.",
        (Query(per_second("stage_seconds_sum", "stage"), "{{stage}}"),), "area", 12,
    ),
    Panel(
        "Slowest percent of each stage", "s",
        "p99 of a batch, by stage. load with a long tail: cold experts; raise device_bytes or "
        "host_bytes, or pin and preload what is used most.",
        quantiles("stage_seconds", "stage", levels=(0.99,)), width=12,
    ),
))  # fmt: skip

TIERS = Row("Experts in memory", (
    Panel(
        "Lookups", "ops",
        "Experts looked for in each tier. The host is asked for what the device has not.",
        (Query(per_second("expert_cache_lookups_total", "tier"), "{{tier}}"),), width=8,
    ),
    Panel(
        "Hits", "percentunit",
        "Share of lookups found in the tier. device low: more experts are in use than fit; raise "
        "device_bytes. host low as well: raise host_bytes.",
        (Query(_share("expert_cache_hits_total", "expert_cache_lookups_total", "tier"),
               "{{tier}}"),), width=8, most=1,
    ),
    Panel(
        "Bytes held", "bytes",
        "Bytes of experts in each tier, and what the settings allow. At the limit experts are "
        "evicted: see hits and evictions before raising it.",
        (Query("sum by (tier) (sailplane_expert_cache_bytes{$on})", "{{tier}}"),
         Query("sum by (tier) (sailplane_expert_cache_limit_bytes{$on})", "{{tier}} limit")),
        width=8,
    ),
    Panel(
        "Experts held", "short",
        "How many experts each tier holds. Bytes by experts is what one takes: size device_bytes "
        "by the experts that are in use at one time.",
        (Query("sum by (tier) (sailplane_expert_cache_experts{$on})", "{{tier}}"),), width=6,
    ),
    Panel(
        "Evictions", "ops",
        "Experts that had to make room. Evictions with fast loads cost little; with loads of tens "
        "of milliseconds the host is too small, or the disk is far away.",
        (Query(per_second("expert_cache_evictions_total", "tier"), "{{tier}}"),), width=6,
    ),
    Panel(
        "Time of a load", "s",
        "host: from disk, with every check. device: from the host. A slow host: the library lies "
        "on a slow disk or network.",
        quantiles("expert_load_seconds", "tier", levels=(0.5, 0.99)), width=6,
    ),
    Panel(
        "Loads that failed", "ops",
        "Must be 0. The log names expert and reason; `sailplane experts verify` checks all files.",
        (Query(per_second("expert_cache_failures_total", "tier"), "{{tier}}"),), width=6,
    ),
))  # fmt: skip

MEMORY = Row("Features, memory, background work", (
    Panel(
        "Feature lookups", "ops",
        "Texts whose vectors were asked for: words (instructions, choices), inputs, statements. "
        "Many more than requests: they carry many questions or choices each.",
        (Query(per_second("feature_lookups_total", "store"), "{{store}}"),), width=8,
    ),
    Panel(
        "Features known already", "percentunit",
        "Share of them that needed no pass. words low: every request brings instructions of its "
        "own, and pays for embedding them.",
        (Query(_share("feature_hits_total", "feature_lookups_total", "store"), "{{store}}"),),
        width=8, most=1,
    ),
    Panel(
        "Memory of the process", "bytes",
        "Resident memory, and the tiers' part of it. The rest is backbone, features and buffers; "
        "it should not grow on once the tiers are full.",
        (Query("process_resident_memory_bytes{$on}", "{{instance}}"),
         Query("sum by (instance) (sailplane_expert_cache_bytes{$on})", "{{instance}} tiers")),
        width=8,
    ),
    Panel(
        "Garbage collections", "ops",
        "Python's collections a second, by generation. Generation 2 stops the server for "
        "milliseconds; more than one a second is a reason to report.",
        (Query("sum by (generation) (rate(python_gc_collections_total{$on}[$__rate_interval]))",
               "{{generation}}"),), width=8,
    ),
    Panel(
        "Background fits", "short",
        "Fits of experts that ended within the last hour. failed: GET /v1/experts/{id} says why.",
        (Query("sum by (state) (increase(sailplane_fits_total{$on}[1h]))", "{{state}}"),), width=8,
    ),
    Panel(
        "Looks at the library's folder", "ops",
        "Looks a second. failed: the folder is gone or its constants are damaged; what was read "
        "is served on, and the log says what is wrong.",
        (Query(per_second("library_looks_total", "state"), "{{state}}"),), width=8,
    ),
))  # fmt: skip

CAPACITY = Board(
    "sailplane-capacity", "Sailplane: capacity",
    "What time and memory go into, and how much is left.",
    (QUEUE, STAGES, TIERS, MEMORY),
)  # fmt: skip
