"""Who answers, how sure the router is, and what it falls back to."""

from __future__ import annotations

from deploy.grafana.panels import Board, Panel, Query, Row, heat, mean, per_second, quantiles

LEVELS = (0.1, 0.5, 0.9)
CONFIDENCE = "routing_confidence"
BELOW_HALF = per_second(f"{CONFIDENCE}_bucket", where='le="0.5"')
UNSURE = f"{BELOW_HALF} / {per_second(f'{CONFIDENCE}_count')}"

WHO = Row("Who answers", (
    Panel(
        "Experts selected", "ops",
        "The ten busiest experts. One that vanishes was removed, is bad, or lost its tasks to "
        "another; compare with the day of the last change of the library.",
        (Query(f'topk(10, {per_second("experts_selected_total", "expert")})', "{{expert}}"),),
        "area", 12,
    ),
    Panel(
        "Selections by mode", "ops",
        "single: one expert. merge: several as one. token: mixed per token. base: none, by the "
        "caller's wish or as a fallback. Many base answers: see the fallbacks below.",
        (Query(per_second("routing_mode_total", "mode"), "{{mode}}"),), "area", 6,
    ),
    Panel(
        "Experts in the library", "short",
        "Experts that can be served, and bad ones. Bad: `sailplane experts list` says why, "
        "`sailplane experts verify` checks every file.",
        (Query("max by (state) (sailplane_library_experts{$on})", "{{state}}"),), width=6,
    ),
))  # fmt: skip

SURE = Row("How sure is the router?", (
    Panel(
        "Confidence", "percentunit",
        "How probable it is that the first expert is the right one. Falling: requests have "
        "changed, or an expert they need is missing. `sailplane log` compares them with those of "
        "the calibration.",
        quantiles(CONFIDENCE, levels=LEVELS), width=8, most=1,
    ),
    Panel(
        "How confidence is spread", "percentunit",
        "Two heaps, near 0 and near 1, are sound: known tasks and unknown ones. All in the "
        "middle: calibrate again (`sailplane fit --calibrate`).",
        heat(CONFIDENCE), "heat", 8,
    ),
    Panel(
        "Requests that no expert surely fits", "percentunit",
        "Share below a confidence of one half. High: train or add experts for these tasks; the "
        "routing log has their scores.",
        (Query(UNSURE, "below 0.5"),), width=8, most=1,
    ),
    Panel(
        "Best score", "none",
        "Score of the best expert. It is a probability under the default router and a cosine "
        "under others, so compare it only with itself.",
        quantiles("routing_top_score", levels=LEVELS), width=8,
    ),
    Panel(
        "Entropy of the mix", "none",
        "0: one expert answers alone; 0.69: two in equal parts. Rising: experts have become alike, "
        "merge them (`sailplane experts merge`).",
        (*quantiles("routing_entropy", levels=(0.5, 0.9)), mean("routing_entropy")), width=8,
    ),
    Panel(
        "Fewer fits than usual?", "percentunit",
        "The share without a fit, now and over a day. Now far above the day's: something has "
        "changed with the requests or the library.",
        (Query("sailplane:no_fit:ratio_rate30m", "{{job}} half an hour"),
         Query("sailplane:no_fit:ratio_rate1d", "{{job}} a day")), width=8, most=1,
    ),
))  # fmt: skip

FALLS = Row("Fallbacks and instructions", (
    Panel(
        "Fallbacks by reason", "ops",
        "no_fit: no expert surely fits. no_expert: none may answer (tags, or an empty library). "
        "load_failed: another took the place of one that could not be loaded; the log says why. "
        "truncated: inputs were cut. narrowed: fewer candidates than the router wants. "
        "instruction_writer: the template wrote.",
        (Query(per_second("routing_fallback_total", "reason"), "{{reason}}"),), width=8,
    ),
    Panel(
        "Instructions by writer", "ops",
        "Who said what the task is. template where openai or local is set: that writer fails or "
        "is too slow; see the time beside this and the endpoint's own state.",
        (Query(per_second("instructions_total", "writer"), "{{writer}}"),), "area", 8,
    ),
    Panel(
        "Time for instructions", "s",
        "What writing an instruction takes, of those that the server has written. Near "
        "openai_timeout_ms: the template is about to take over; use a faster model.",
        quantiles("stage_seconds", where='stage="instruction"'), width=8,
    ),
    Panel(
        "Samples refused", "ops",
        "Samples that the engine could not answer, by the error's class. InputTooLong is the "
        "client's; Bad, Corrupt and MismatchedExpert want the library looked at.",
        (Query(f'{per_second("samples_failed_total", "error")} or vector(0)', "{{error}}"),),
        width=12,
    ),
    Panel(
        "Routing log lines lost", "ops",
        "Must be 0. queue_full: the disk is too slow for the log. not_written: it is full or not "
        "writable; the server's log says which.",
        (Query(per_second("routing_log_lost_total", "reason"), "{{reason}}"),), width=12,
    ),
))  # fmt: skip

ROUTING = Board(
    "sailplane-routing", "Sailplane: routing",
    "Which experts answer, how sure the router is of them, and what it falls back to.",
    (WHO, SURE, FALLS),
)  # fmt: skip
