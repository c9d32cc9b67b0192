"""Texts being written: how soon, how fast, how many, and the memory that they take."""

from __future__ import annotations

from deploy.grafana.panels import Board, Panel, Query, Row, mean, per_second, quantiles

REUSED, READ = per_second("prompt_tokens_reused_total"), per_second("prompt_tokens_total")

SOON = Row("How soon and how fast", (
    Panel(
        "Time to first token", "s",
        "From request to first token, routing included. High with prompts waiting: rows or memory "
        "are short. High without: prompts are long, or routing is slow ('capacity').",
        quantiles("time_to_first_token_seconds"), width=8,
    ),
    Panel(
        "Between two tokens", "s",
        "What a reader of a stream sees. It rises with the rows written at one time; lower "
        "max_rows if it matters more than throughput.",
        quantiles("inter_token_seconds"), width=8,
    ),
    Panel(
        "Time of a step", "s",
        "One token for every row, or a part of a prompt read. Rows with many different experts "
        "take longer.",
        quantiles("generation_step_seconds"), width=8,
    ),
    Panel(
        "Tokens", "short",
        "Tokens a second: written, and of prompts read. Written falling while texts are being "
        "written: steps have become slow.",
        (Query(per_second("generated_tokens_total"), "written"), Query(READ, "read")), width=8,
    ),
    Panel(
        "Prompt tokens reused", "percentunit",
        "Share of prompts' tokens that need not be read again, as others began alike. Low with a "
        "common system prompt: raise prefix_bytes; they are kept for each selection of experts "
        "and each caller.",
        (Query(f"{REUSED} / ({REUSED} + {READ})", "reused"),), width=8, most=1,
    ),
    Panel(
        "Texts by how they ended", "ops",
        "stop: the model ended. length: max_tokens came first. error: the log has the reason.",
        (Query(per_second("texts_total", "finish"), "{{finish}}"),), "area", 8,
    ),
))  # fmt: skip

ROWS = Row("Rows and memory", (
    Panel(
        "Texts being written", "short",
        "Rows of the running batch. At max_rows new prompts wait: raise it, or add replicas.",
        (Query("sailplane_running_rows{$on}", "{{instance}}"),), width=8,
    ),
    Panel(
        "Prompts waiting", "short",
        "Prompts without a row. More than 0 for long: no room for keys and values (beside this) or "
        "no row is free; add replicas or raise kv_bytes.",
        (Query("sailplane_waiting_prompts{$on}", "{{instance}}"),), width=8,
    ),
    Panel(
        "Memory for keys and values", "percentunit",
        "Use of kv_bytes. Near 1 new prompts wait until texts end. What max_tokens allows is set "
        "aside from the start, so lower max_tokens help too.",
        (Query("sailplane_kv_used_ratio{$on}", "{{instance}}"),), width=8, most=1,
    ),
    Panel(
        "Rows a step", "short",
        "How many texts share a step. More rows a step are more tokens a second; 1 under load "
        "means that clients ask one after the other.",
        (*quantiles("generation_rows", levels=(0.5, 0.99)), mean("generation_rows")), width=8,
    ),
    Panel(
        "Other memory", "bytes",
        "Kept beginnings of prompts, up to prefix_bytes, and the running rows' experts side by "
        "side. Lower prefix_bytes if the process is short of memory.",
        (Query("sum(sailplane_prefix_bytes{$on})", "beginnings"),
         Query("sum(sailplane_expert_bank_bytes{$on})", "experts")), width=8,
    ),
    Panel(
        "Experts in use", "dateTimeAsIso",
        "Experts of running and waiting texts, as gateways of the inference extension read them. "
        "The same ones waiting on every server: a gateway does not heed it.",
        (Query("sailplane_lora_requests_info{$on}"),), "table", 8,
    ),
))  # fmt: skip

GENERATION = Board(
    "sailplane-generation", "Sailplane: generation",
    "Texts being written, where the backbone is a language model.",
    (SOON, ROWS),
)  # fmt: skip
