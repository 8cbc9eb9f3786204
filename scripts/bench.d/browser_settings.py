"""ONNX Runtime Web's settings: those that are compared with, and a case that tries the others."""

import json
from statistics import median

import table
from runs import say

# What `settings` found to be fastest: GELU by tanh, which is off by far less than q8 is.
BEST = {"options": {"extra": {"optimization": {"enable_gelu_approximation": "1"}}}}
# Plain text for whoever reads the table, and what is different from the settings that `latency` takes.
TRIED = [
    ("all graph optimisation, the default", {}),
    ("no graph optimisation", {"options": {"graphOptimizationLevel": "disabled"}}),
    ("extended graph optimisation", {"options": {"graphOptimizationLevel": "extended"}}),
    ("relaxed SIMD asked for", {"simd": "relaxed"}),
    ("no memory arena", {"options": {"enableCpuMemArena": False, "enableMemPattern": False}}),
    ("memory arena and pattern", {"options": {"enableCpuMemArena": True, "enableMemPattern": True}}),
    ("GELU approximated, as in latency's q8", BEST),
    (
        "the version and runtime of transformers.js",
        {"module": "/transformers-ort/ort.webgpu.min.mjs", "wasmPaths": "/transformers-ort/"},
    ),
]
TOKENS = 128
UNTIMED = 6


def ort(title, model, threads, **different):
    """A peer in the page."""
    return {
        **{"kind": "ort", "title": title, "threads": threads, "model": f"/onnx/model/onnx/{model}.onnx"},
        **{"module": "/ort/ort.wasm.min.mjs", "wasmPaths": "/ort/", "options": {}},
        **different,
    }


def run(bench, take_turns, shown_as):
    args = bench.args
    path = bench.prepare("measured-texts", "texts.json", token_counts=str(TOKENS), rows=UNTIMED + args.rounds)
    with open(path, encoding="utf-8") as file:
        texts = json.load(file)
    rows = []
    for model in ("model_quantized", "model"):
        for threads in args.threads:
            say(f"settings: {model}, {threads} threads")
            peers = [ort(title, model, threads, **different) for title, different in TRIED]
            rows += take_turns(bench, f"settings, {model}, {threads} threads", peers, texts)[0]
    for row in rows:
        row["ms"] = row.pop("tokens")[str(TOKENS)]["ms"]
    columns = ["setting", *(f"{name}, {count} threads" for name in ("q8", "f32") for count in args.threads)]

    def cell(title, model, threads):
        for row in rows:
            if row["title"] == title and f"/{model}.onnx" in row["model"] and row["threads"] == threads:
                return shown_as(median(row["ms"]))
        return "refused"

    shown = [
        [title, *(cell(title, model, count) for model in ("model_quantized", "model") for count in args.threads)]
        for title, _ in TRIED
    ]
    note = f"{TOKENS} tokens; medians of {args.rounds} calls, the settings taking turns call by call."
    return {"title": "Settings of ONNX Runtime Web", "text": f"{table.markdown(columns, shown)}\n\n{note}\n", "rows": rows}
