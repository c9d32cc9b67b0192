"""Is the service well, and if not, where to look next."""

from __future__ import annotations

from deploy.grafana.panels import Board, Panel, Query, Row, per_second, quantiles

API = 'route=~"/v1/.+"'

WELL = Row("Is it well?", (
    Panel(
        "Servers ready", "short",
        "Servers that take requests. Red: none does. Look at the log of a server that is not "
        "ready; it may be loading its library or draining, and /ready says which.",
        (Query("sum(sailplane_ready{$on})"),), "stat", 4, warn=1, alarm=0.5,
    ),
    Panel(
        "Alerts firing", "short",
        "Alerts of rules/alerts.yml that fire now. Each says what to do in its description.",
        (Query('count(ALERTS{alertname=~"Sailplane.+", alertstate="firing"}) or vector(0)'),),
        "stat", 4, warn=1, alarm=3,
    ),
    Panel(
        "Requests", "reqps",
        "Requests of the API a second. None although clients ask: look at the load balancer and "
        "the network policy.",
        (Query(per_second("requests_total", where=API)),), "stat", 4,
    ),
    Panel(
        "Faults", "percentunit",
        "Share of requests that failed through no fault of the client, over five minutes. "
        "'Errors by code' below says how; an internal_error has a traceback in the log.",
        (Query("max(sailplane:faults:ratio_rate5m)"),), "stat", 4, warn=0.001, alarm=0.01,
    ),
    Panel(
        "Slowest percent", "s",
        "99 of 100 requests are answered sooner, writing aside. If it is high, look at the queue "
        "first (dashboard 'capacity'), then at the time per stage.",
        (Query("max(sailplane:request_seconds:p99_5m)"),), "stat", 4, warn=1, alarm=5,
    ),
    Panel(
        "Queue filled", "percentunit",
        "The fullest queue, of what it takes before it refuses. Near 1 requests get 503: add "
        "replicas, or see in 'capacity' what the engine spends its time on.",
        (Query("max(sailplane_queue_samples{$on} / sailplane_queue_limit_samples{$on})"),),
        "stat", 4, most=1, warn=0.5, alarm=0.9,
    ),
))  # fmt: skip

REQUESTS = Row("Requests", (
    Panel(
        "Requests by route", "reqps",
        "What is asked. A route that falls to zero alone: its clients are gone, or are refused "
        "before they reach the server.",
        (Query(per_second("requests_total", "route", API), "{{route}}"),), "area", 8,
    ),
    Panel(
        "Errors by code", "reqps",
        "Errors by what the body calls them. invalid_value and the like are the client's; "
        "queue_full, draining, deadline_passed and internal_error are ours. server/errors.py has "
        "the table.",
        (Query(f'{per_second("errors_total", "code")} or vector(0)', "{{code}}"),), "lines", 8,
    ),
    Panel(
        "Time to answer", "s",
        "From the request's arrival to the end of the response, by quantile. p50 and p99 high: "
        "the engine is slow or busy. p99 alone: cold experts, long inputs, or a queue in bursts.",
        quantiles("request_seconds", where=API), width=8,
    ),
    Panel(
        "Time to answer, by route", "s",
        "The slowest percent of every route. Routes that write last as long as their texts; see "
        "'generation' for the first token.",
        quantiles("request_seconds", "route", API, levels=(0.99,)), width=8,
    ),
    Panel(
        "Requests being answered", "short",
        "Requests inside the server. If it climbs while requests a second do not, something is "
        "stuck: look at queue and stages in 'capacity'.",
        (Query("sum by (instance) (sailplane_requests_in_flight{$on})", "{{instance}}"),), width=8,
    ),
    Panel(
        "Requests by key", "reqps",
        "Who asks, where the server has keys. One that rises alone: look at its limits with "
        "`sailplane keys list`. Errors rate_limit_exceeded and too_many_at_once are those of keys.",
        (Query(f'{per_second("key_requests_total", "key")} or vector(0)', "{{key}}"),), width=8,
    ),
))  # fmt: skip

BUDGET = Row("Error budget (99.9% of requests)", (
    Panel(
        "How fast the budget burns", "short",
        "1 uses up a month's budget of faults in a month; 14.4 uses up a fiftieth in an hour, and "
        "pages. Roll back what was changed when it rose.",
        tuple(Query(f"sailplane:faults:ratio_rate{w} / 0.001", f"{{{{job}}}} {w}")
              for w in ("5m", "30m", "1h", "6h")),
        width=12,
    ),
    Panel(
        "Answers by status", "reqps",
        "HTTP status of the answers. Many 404: a model or expert was removed that clients still "
        "name. Status 0: the client left before the answer.",
        (Query(per_second("requests_total", "status", API), "{{status}}"),), "area", 12,
    ),
))  # fmt: skip

PROCESS = Row("The process", (
    Panel(
        "Memory", "bytes",
        "Resident memory. It grows until the tiers are full ('capacity') and stays there. If it "
        "grows on, restart the server and report it.",
        (Query("process_resident_memory_bytes{$on}", "{{instance}}"),), width=8,
    ),
    Panel(
        "Cores in use", "short",
        "CPU seconds a second. At the number of cores the machine is the limit: add replicas.",
        (Query("rate(process_cpu_seconds_total{$on}[$__rate_interval])", "{{instance}}"),), width=8,
    ),
    Panel(
        "File descriptors", "percentunit",
        "Open descriptors of those allowed. Near 1 no connection can be taken: raise the limit, "
        "or find the clients that keep connections open.",
        (Query("process_open_fds{$on} / process_max_fds{$on}", "{{instance}}"),), width=8, most=1,
    ),
    Panel(
        "What is served", "short",
        "Version and models of every server. Two versions side by side: a roll-out is under way, "
        "or stuck.",
        (Query("sailplane_build_info{$on}"),), "table", 12,
    ),
    Panel(
        "State of the library", "short",
        "The generation names the library's content. Servers of one library that differ for "
        "longer than scan_seconds do not see the same folder.",
        (Query("sailplane_library_info{$on}"),), "table", 12,
    ),
))  # fmt: skip

OVERVIEW = Board(
    "sailplane-overview", "Sailplane: overview",
    "Is the service well? Start here; the other dashboards say why.",
    (WELL, REQUESTS, BUDGET, PROCESS),
)  # fmt: skip
