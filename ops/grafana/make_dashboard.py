#!/usr/bin/env python3
"""Writes troupe.json, the dashboard, from the list of its panels: JSON of Grafana is for machines.

    ops/grafana/make_dashboard.py > ops/grafana/troupe.json
"""

import json

RATE = "[$__rate_interval]"


def quantiles(metric):
    return {
        f"p{q}": f"histogram_quantile(0.{q}, sum by (le) (rate({metric}_bucket{RATE})))" for q in (50, 95, 99)
    }


# row: [(title, unit, {legend: expression})]
ROWS = {
    "What clients feel": [
        ("Time to first token", "s", quantiles("troupe_time_to_first_token_seconds")),
        ("Between two tokens", "s", quantiles("troupe_inter_token_latency_seconds")),
        ("Whole requests", "s", quantiles("troupe_e2e_request_latency_seconds")),
        ("Answers by status", "reqps", {"{{status}}": f"sum by (status) (rate(troupe_gateway_answers_total{RATE}))"}),
    ],
    "Work": [
        (
            "Tokens",
            "short",
            {
                "prompt": f"sum(rate(troupe_prompt_tokens_total{RATE}))",
                "generated": f"sum(rate(troupe_generation_tokens_total{RATE}))",
            },
        ),
        (
            "Sequences",
            "short",
            {"running": "sum(troupe_sequences_running)", "waiting": "sum(troupe_sequences_waiting)"},
        ),
        ("Queue wait", "s", quantiles("troupe_queue_wait_seconds")),
        ("Steps", "s", quantiles("troupe_step_seconds")),
    ],
    "Executors": [
        (
            "Busy",
            "percentunit",
            {"{{instance}}": f"rate(troupe_executor_busy_seconds_total{RATE})"},
        ),
        (
            "KV blocks",
            "short",
            {"used": "sum(troupe_kv_blocks_used)", "cached": "sum(troupe_kv_blocks_cached)"},
        ),
        (
            "Prefix cache hits",
            "percentunit",
            {
                "tokens": f"sum(rate(troupe_prefix_cache_hits_total{RATE})) / "
                f"sum(rate(troupe_prefix_cache_queries_total{RATE}))"
            },
        ),
        (
            "Drafts accepted",
            "percentunit",
            {
                "tokens": f"sum(rate(troupe_draft_tokens_accepted_total{RATE})) / "
                f"sum(rate(troupe_draft_tokens_total{RATE}))"
            },
        ),
    ],
    "Losses": [
        ("Requests sent again", "reqps", {"": f"sum(rate(troupe_gateway_retries_total{RATE}))"}),
        (
            "Refused",
            "reqps",
            {
                "gateway": f"sum(rate(troupe_gateway_overloaded_total{RATE}))",
                "scheduler": f"sum(rate(troupe_requests_refused_total{RATE}))",
            },
        ),
        ("Preemptions", "short", {"": f"sum(rate(troupe_preemptions_total{RATE}))"}),
        ("Peers lost", "short", {"{{service}}": f"sum by (service) (rate(troupe_bus_peers_lost_total{RATE}))"}),
    ],
}

WIDTH, HEIGHT = 6, 7
SOURCE = {"type": "prometheus", "uid": "${source}"}


def panel(title, unit, series, x, y):
    return {
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": expression, "legendFormat": legend or title}
            for i, (legend, expression) in enumerate(series.items())
        ],
    }


def dashboard():
    panels, y = [], 0
    for row, members in ROWS.items():
        panels.append({"type": "row", "title": row, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        panels += [panel(*member, x=i * WIDTH, y=y + 1) for i, member in enumerate(members)]
        y += HEIGHT + 1
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "troupe",
        "title": "Troupe",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [source]},
        "panels": [{"id": i + 1, **each} for i, each in enumerate(panels)],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
