"""The cases of `scripts/bench browser`: each gives its title, its tables as text, and its figures."""

import csv
import json
import math
import os
import struct
from statistics import median

import browser_settings
import machine
import table
from runs import say

# Calls at the start whose time nobody takes: engines compile what runs often.
UNTIMED = 6
# Milliseconds between two calls.
PAUSE = 15
# How many times the test side is read where its time is taken, and how many texts the run is that is taken off it.
REPEAT, FEW = 5, 50


def milliseconds(value):
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def megabytes(size):
    return f"{size / 1e6:,.2f} MB"


def _float32(values):
    return [struct.unpack("f", struct.pack("f", value))[0] for value in values]


def latency(bench):
    """Median time of one call, every peer in one page, by tokens and threads."""
    args = bench.args
    say("latency: preparing")
    path = bench.prepare(
        *("measured-texts", "texts.json"),
        token_counts=",".join(map(str, args.tokens)), rows=UNTIMED + args.rounds,
    )  # fmt: skip
    with open(path, encoding="utf-8") as file:
        texts = json.load(file)

    peers = [
        browser_settings.ort(f"ONNX Runtime Web, {name}", model, threads, **different)
        for threads in args.threads
        for name, model, different in (("f32", "model", {}), ("q8", "model_quantized", browser_settings.BEST))
    ]
    for build in bench.builds():
        counts = [count for count in args.threads if count > 1] if "threads" in build else [1]
        peers += [
            {"kind": "ours", "title": f"pagebert {args.precision}, {build}", "build": build, "threads": count}
            for count in counts
        ]
    rows, version = _take_turns(bench, "latency", peers, texts)
    _check_logits(rows, args.tokens)
    text = "\n".join(_by_threads(rows, count, args.tokens) for count in args.threads)
    simd = [row for row in rows if row.get("build") == "simd"]
    against = [row for row in rows if row["title"].endswith("q8") and row["threads"] == 1]
    if simd and against:
        text += "\nWithout relaxed SIMD on either side, one thread:\n\n" + _speeds(simd + against, simd[0], args.tokens)
    note = (
        f"Medians of {args.rounds} calls after {UNTIMED} untimed ones, from the page's call to the answer, every engine "
        "in a worker; every peer gets every text once, the peers taking turns call by call, in orders in which "
        "each follows every other equally often within a text. pagebert's time has "
        "tokenizing in it, ONNX Runtime Web's has not. In brackets: how many times as fast pagebert's best at that "
        "many threads is, text by text, the median. ONNX Runtime Web optimises all it can, in q8 with its approximated "
        "GELU too, the fastest of its settings; its package has no build with relaxed SIMD."
    )
    return {"title": "Latency of one text", "text": f"{text}\n\n{note}\n", "rows": rows, "chromium": version}


def _take_turns(bench, title, peers, texts):
    """Each peer's times and logits by token count. Peers that could not be loaded, or as another build, are left out."""
    found = bench.drive("latency", title=title, peers=peers, texts=texts, untimed=UNTIMED, pause=PAUSE)
    loaded, rows = 0, []
    for peer, about in zip(peers, found["about"], strict=True):
        if "error" in about:
            say(f"{peer['title']}, {peer['threads']} threads: {about['error']}")
            continue
        index, loaded = loaded, loaded + 1
        if about.get("build", peer.get("build")) != peer.get("build"):
            say(f"{peer['title']}: the page ran {about['build']} instead")
            continue
        figures = {
            count: {key: values[index] for key, values in one.items()} for count, one in found["tokens"].items()
        }
        rows.append({**peer, "about": about, "tokens": figures})
    return rows, found["chromium"]


def _check_logits(rows, counts):
    """All compute the same model: how far each is from ONNX Runtime Web in f32."""
    reference = next(row for row in rows if row["title"].endswith("f32"))
    for row in rows:
        apart = [
            abs(a - b)
            for count in map(str, counts)
            for one, other in zip(row["tokens"][count]["logits"], reference["tokens"][count]["logits"], strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        row["logits_apart"] = {"median": median(apart), "most": max(apart)}
        say(f"{row['title']}, {row['threads']} threads: logits differ from f32's by at most {max(apart):.1e}")
        # Int8 goes astray on random words; another model would be out everywhere.
        if median(apart) > 0.5:
            raise SystemExit(f"{row['title']} computes something else")
    for row in rows:
        for one in row["tokens"].values():
            del one["logits"]


def _by_threads(rows, threads, counts):
    """The table of one number of threads; pagebert's builds without threads stand in where it has none with them."""
    chosen = [row for row in rows if row["threads"] == threads]
    ours = [row for row in chosen if row["kind"] == "ours"]
    if not ours:
        ours = [row for row in rows if row["kind"] == "ours" and row["threads"] == 1]
        chosen += ours
    if not chosen or not ours:
        return ""
    best = min(ours, key=lambda row: sum(math.log(median(row["tokens"][str(count)]["ms"])) for count in counts))
    return f"{threads} thread{'s' if threads > 1 else ''}:\n\n{_speeds(chosen, best, counts)}\n"


def _speeds(rows, best, counts):
    def cell(row, count):
        ms, reference = (one["tokens"][str(count)]["ms"] for one in (row, best))
        # Of one text right after the other: a machine's speed changes within a minute.
        times = median(theirs / ours for theirs, ours in zip(ms, reference, strict=True))
        return f"{milliseconds(median(ms))} ({times:.2f} ×)"

    columns = ["classified by", "threads", *(f"{count} tokens" for count in counts)]
    return table.markdown(
        columns, [[row["title"], row["threads"], *(cell(row, count) for count in counts)] for row in rows]
    )


def settings(bench):
    """ONNX Runtime Web against itself, so that latency compares with its best."""
    return browser_settings.run(bench, _take_turns, milliseconds)


PAGES = [
    {"name": "pagebert", "url": "/pages/pagebert.html"},
    {"name": "transformers.js q8", "url": "/pages/transformers.html"},
    {"name": "transformers.js q8, runtime without WebGPU", "url": "/pages/transformers.html?plain"},
    {"name": "transformers.js q8, files as they come", "url": "/pages/transformers.html", "asTheyCome": True},
    {
        "name": "transformers.js q8, runtime without WebGPU, files as they come",
        "url": "/pages/transformers.html?plain",
        "asTheyCome": True,
    },
]
WHOLE = {"name": "pagebert, its whole page", "url": "/site/index.html", "untimed": True}


def _kind(path):
    name = os.path.basename(path)
    if name.endswith((".safetensors", ".onnx")):
        return "model"
    if name.endswith(".wasm"):
        return "WebAssembly"
    return "tokenizer" if "tokenizer" in name else "scripts, page, rest"


def bytes(bench):  # noqa: A001 the case's name
    """What a first visit downloads."""
    found = bench.drive("loads", pages=[*PAGES, WHOLE], lines=[], rounds=0)
    kinds = ["WebAssembly", "model", "tokenizer", "scripts, page, rest"]
    rows = []
    for name, figures in found.items():
        bodies = dict.fromkeys(kinds, 0)
        for answer in figures["answers"]:
            bodies[_kind(answer["path"])] += answer["sent"]
        rows.append({"page": name, "wire": figures["wire"], **bodies, "answers": figures["answers"]})
    shown = [
        [
            *(row["page"], megabytes(row["wire"]), f"{rows[0]['wire'] / row['wire']:.2f} ×"),
            *(megabytes(row[kind]) for kind in kinds),
        ]
        for row in rows
    ]
    text = table.markdown(["page", "over the wire", "pagebert's of it", *kinds], shown)
    note = (
        "Bytes that the server sent until the first label, headers included, to a browser that had nothing cached; "
        "every file as brotli 11 where that is smaller, but for files as they come: a hub sends the model as it is, and "
        "the runtime's package has no compressed files. The pages load, classify one text and show the "
        "label, nothing else."
    )
    return {"title": "Bytes before the first label", "text": f"{text}\n\n{note}\n", "rows": rows}


def cold(bench):
    """Seconds from navigation to the first label."""
    lines = [{"name": "loopback"}, {"name": "50 Mbit/s", "megabits": 50}]
    found = bench.drive("loads", pages=PAGES, lines=lines, rounds=bench.args.loads)
    rows = [{"page": name, "ms": figures["ms"]} for name, figures in found.items()]

    def cell(row, line):
        seconds, ours = ([ms / 1000 for ms in one["ms"][line]] for one in (row, rows[0]))
        return f"{table.spread(seconds)} s ({median(seconds) / median(ours):.2f} ×)"

    names = [line["name"] for line in lines]
    text = table.markdown(["page", *names], [[row["page"], *(cell(row, name) for name in names)] for row in rows])
    note = (
        f"Navigation to first label, median of {bench.args.loads} (least to most), each in a new browser with an empty "
        "cache; in brackets: how many times as long as pagebert's. The slow line delays bytes, not answers: it has no "
        "latency of its own. Files are compressed as for the bytes. transformers.js runs without its own caches, which a "
        "first visit only fills."
    )
    return {"title": "Cold start", "text": f"{text}\n\n{note}\n", "rows": rows}


def sizes(bench):
    """WebAssembly files."""
    runtime = "ort-wasm-simd-threaded"
    files = [{"title": f"pagebert, {name}", "file": path} for name, path in bench.builds().items()]
    files += [
        {"title": "ONNX Runtime Web", "file": f"npm:onnxruntime-web/dist/{runtime}.wasm"},
        {"title": "transformers.js", "file": f"transformers-ort:{runtime}.asyncify.wasm"},
        {"title": "transformers.js, without WebGPU", "file": f"transformers-ort:{runtime}.wasm"},
    ]
    rows = bench.drive("sizes", files=files)
    smallest = rows[0]
    shown = [
        [
            *(row["title"], f"{row['bytes']:,}", f"{row['compressed']:,}"),
            f"{row['compressed'] / smallest['compressed']:.2f} ×",
        ]
        for row in rows
    ]
    text = table.markdown(["WebAssembly of", "bytes", "as brotli 11", "of pagebert's"], shown)
    return {"title": "Sizes of the engines", "text": f"{text}\n", "rows": rows}


def _native_logits(bench, data):
    out = os.path.join(bench.work, "native.jsonl")
    bench.pagebert("predict", "--quiet", bench.bundle, "--data", data, "--out", out)
    with open(out, encoding="utf-8") as file:
        return [json.loads(line)["logits"] for line in file]


def _right(logits, truths):
    """The share of right answers."""
    return sum(one.index(max(one)) == truth for one, truth in zip(logits, truths, strict=True)) / len(truths)


def _test_side(bench):
    """The test texts: their file, their texts, and their labels' numbers."""
    path = bench.prepare("test-side", "test.csv", data=bench.data)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(os.path.join(bench.bundle, "manifest.json"), encoding="utf-8") as file:
        names = json.load(file)["labels"]
    return path, [row["text"] for row in rows], [names.index(row["label"]) for row in rows]


def accuracy(bench):
    """The page's logits against the native ones, bit by bit."""
    path, texts, truths = _test_side(bench)
    native = [_float32(one) for one in _native_logits(bench, path)]
    builds = [
        {"build": build, "threads": count}
        for build in bench.builds()
        for count in (bench.args.threads if "threads" in build else [1])
    ]
    found = bench.drive("accuracy", builds=builds, texts=texts)
    rows = []
    for settings_, figures in zip(builds, found, strict=True):
        if figures["build"] != settings_["build"]:
            say(f"accuracy: the page ran {figures['build']} instead of {settings_['build']}")
            continue
        logits = [_float32(one) for one in figures["logits"]]
        pairs = list(zip(logits, native, strict=True))
        rows.append({
            **settings_,
            "texts": len(texts),
            "not_equal": sum(one != other for one, other in pairs),
            "labels_not_equal": sum(one.index(max(one)) != other.index(max(other)) for one, other in pairs),
            "most_apart": max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
            "accuracy": _right(logits, truths),
        })  # fmt: skip
    shown = [
        [
            *(f"{row['build']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}", f"{row['not_equal']:,}"),
            *(f"{row['most_apart']:.1e}" if row["most_apart"] else "0", row["labels_not_equal"]),
            f"{100 * row['accuracy']:.2f} %",
        ]
        for row in rows
    ]
    columns = ["build", "texts with other logits", "most apart", "other labels", "test accuracy"]
    native_right = f"{100 * _right(native, truths):.2f} %"
    note = (
        f"{len(texts):,} test texts, an {bench.args.precision} bundle: the page's logits against those of `pagebert "
        f"predict`, bit by bit; its own accuracy is {native_right}."
    )
    text = table.markdown(columns, shown)
    return {"title": "The page against `pagebert predict`", "text": f"{text}\n\n{note}\n", "rows": rows}


def native(bench):
    """Texts per second outside of the browser. pagebert prints no time of its own, so it is the time of many texts less
    that of a few: loading and starting are not in it."""
    path, texts, truths = _test_side(bench)
    with open(path, encoding="utf-8", newline="") as file:
        head, body = file.readline(), file.read()
    many, few = os.path.join(bench.work, "many.csv"), os.path.join(bench.work, "few.csv")
    with open(many, "w", encoding="utf-8", newline="") as file:
        file.write(head + body * REPEAT)
    bench.python("prepare.py", "first-rows", out=few, data=path, rows=FEW)
    threads = machine.cores()

    def ours():
        def seconds(data):
            out = os.path.join(bench.work, "predictions.jsonl")
            command = ["predict", "--quiet", bench.bundle, "--data", data, "--out", out, "--threads", str(threads)]
            return bench.pagebert(*command).seconds

        before = seconds(few)
        return (REPEAT * len(texts) - FEW) / (seconds(many) - before)

    rows = [{"title": f"pagebert predict, {bench.args.precision}", "texts_per_s": [], "measure": ours}]
    rows[0]["accuracy"] = _right(_native_logits(bench, path), truths)

    def theirs(row, model, batch):
        def measure():
            ran = bench.python(
                "ort_native.py", model=os.path.join(bench.model, "onnx", f"{model}.onnx"), batch=batch,
                tokenizer=bench.checkpoint, data=path, threads=threads, repeat=REPEAT,
            )  # fmt: skip
            figures = json.loads(ran.stdout.splitlines()[-1])
            row["accuracy"] = _right(figures["logits"], truths)
            return figures["texts"] / figures["seconds"]

        return measure

    for name, model, batch in [("q8", "model_quantized", 32), ("q8", "model_quantized", 8), ("f32", "model", 32)]:
        row = {"title": f"ONNX Runtime {name}, batches of {batch}", "texts_per_s": []}
        row["measure"] = theirs(row, model, batch)
        rows.append(row)
    for number in range(bench.args.loads):
        for row in rows:
            row["texts_per_s"].append(row["measure"]())
            say(f"native, round {number + 1} of {bench.args.loads}: {row['title']}: {row['texts_per_s'][-1]:,.0f} texts/s")
    for row in rows:
        del row["measure"]
    shown = [
        [
            *(row["title"], table.spread(row["texts_per_s"])),
            *(table.ratio(rows[0]["texts_per_s"], row["texts_per_s"]), f"{100 * row['accuracy']:.2f} %"),
        ]
        for row in rows
    ]
    text = table.markdown(["classified by", "texts/s", "pagebert against it", "test accuracy"], shown)
    note = (
        f"{len(texts):,} test texts, {REPEAT} times over, {threads} threads, tokenizing included, loading not; sorted by "
        f"length on both sides. Median of {bench.args.loads} rounds (least to most)."
    )
    return {"title": "Native, many texts", "text": f"{text}\n\n{note}\n", "rows": rows}
