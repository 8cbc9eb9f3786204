"""The other cases: evaluation, data of growing size, accuracy."""

from statistics import mean, stdev

import machine
import speed
import table
from runs import Failed, say

SMALL = 100


def evaluate(tools, root):
    """Texts per second of a finished model. pagebert prints no time of its own, so it is the time of many texts less
    that of a few: loading and starting are not in it, reading and tokenizing are."""
    args = tools.args
    movies = f"{root}/sample/movies.csv"
    say("evaluate: preparing")
    base = tools.prepare("base-with-classifier", "movies.csv-base", base=f"{root}/sample/base", data=movies)
    many = tools.prepare("first-rows", "many.csv", data=movies, rows=args.texts + SMALL)
    few = tools.prepare("first-rows", "few.csv", data=movies, rows=SMALL)

    def ours(precision):
        before = tools.evaluate(base, few, precision)
        ran = tools.evaluate(base, many, precision)
        return args.texts / max(ran.seconds - before.seconds, 1e-9), ran.peak

    def theirs(precision):
        figures, ran = tools.peer("infer", base=base, data=many, batch=32, precision=precision)
        return figures["texts"] / figures["seconds"], ran.peak

    peers = [
        *(("pagebert", ours, "f32"), ("pagebert", ours, "bf16"), ("pagebert", ours, "int8")),
        *(("PyTorch", theirs, "f32"), ("PyTorch, autocast", theirs, "bf16")),
    ]
    peers = [peer for peer in peers if args.precision in (None, peer[2])]
    peers = [peer for peer in peers if peer[2] != "int8" or machine.trains_in_int8(args.device)]
    rows = [{"peer": name, "computed_in": precision, "texts_per_s": [], "peak_bytes": []} for name, _, precision in peers]
    notes = []
    for number in range(args.rounds):
        for (name, measure, precision), row in zip(peers, rows):
            if "skipped" in row:
                continue
            try:
                texts_per_s, peak = measure(precision)
            except Failed as failed:
                # Usage: this pagebert has no such precision.
                if measure is not ours or precision == "f32" or failed.status != 2:
                    raise
                row["skipped"] = True
                notes.append(f"This pagebert does not evaluate in {precision}.")
                continue
            row["texts_per_s"].append(texts_per_s)
            row["peak_bytes"].append(peak)
            say(f"evaluate, round {number + 1} of {args.rounds}: {name} in {precision}: {texts_per_s:,.0f} texts/s")
    rows = [row for row in rows if "skipped" not in row]
    if not rows or rows[0]["peer"] != "pagebert":
        raise SystemExit(" ".join(notes))
    against = f"pagebert in {rows[0]['computed_in']} against it"
    columns = ["classified by", "computed in", "texts/s", against, "peak memory"]
    text = table.markdown(
        columns,
        [
            [
                *(row["peer"], row["computed_in"], table.spread(row["texts_per_s"])),
                *(table.ratio(rows[0]["texts_per_s"], row["texts_per_s"]), table.mebibytes(max(row["peak_bytes"]))),
            ]
            for row in rows
        ],
    )
    notes.insert(
        0,
        f"{args.texts} texts, tokenizing included, loading not; PyTorch sorts by length, in batches of 32. "
        f"Median of {args.rounds} rounds (least to most).",
    )
    return {"title": "Evaluation: 6 layers × 384, film reviews", "text": f"{text}\n\n{' '.join(notes)}\n", "rows": rows}


def scale(tools, root):
    """pagebert alone on ever more rows. The first half of the steps warms up."""
    args = tools.args
    half = args.steps or 20
    rows = []
    for count in args.rows:
        say(f"scale: making {count:,} rows")
        data = tools.prepare("many-texts", "rows.csv", data=f"{root}/sample/movies.csv", rows=count)
        settings = {"max_steps": 2 * half, "log_every": half, "seed": args.seed, **speed.STEPS_ALONE}
        lines, computed_in, ran = tools.train(data, f"{root}/sample/base", **settings)
        tokens_per_s = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line][1]
        rows.append({"rows": count, "computed_in": computed_in, "tokens_per_s": tokens_per_s})
        rows[-1] |= {"peak_bytes": ran.peak, "seconds": ran.seconds}
        say(f"scale: {count:,} rows: {tokens_per_s:,.0f} tokens/s, {table.mebibytes(ran.peak)}")
    text = table.markdown(
        ["rows", "computed in", "tokens/s", "peak memory", "whole run"],
        [
            [
                *(f"{row['rows']:,}", row["computed_in"], table.number(row["tokens_per_s"])),
                *(table.mebibytes(row["peak_bytes"]), f"{row['seconds']:.0f} s"),
            ]
            for row in rows
        ],
    )
    note = f"{half} steps of 32 texts after {half} untimed ones. The whole run is reading, splitting and tokenizing too."
    return {"title": "More rows: 6 layers × 384", "text": f"{text}\n\n{note}\n", "rows": rows}


def accuracy(tools, root):
    """Test accuracy over several seeds, on one split."""
    args = tools.args
    data, base = f"{root}/sample/movies.csv", f"{root}/sample/base"
    sides = [("pagebert", "auto"), ("pagebert, precision=int8", "int8"), ("pagebert, precision=f32", "f32")]
    sides = [side for side in sides if side[1] != "int8" or machine.trains_in_int8(args.device)]
    sides.append(("PyTorch, random order", "f32"))
    rows = [{"peer": title, "precision": precision, "runs": []} for title, precision in sides]
    for seed in range(1, args.seeds + 1):
        for row in list(rows):
            if row["precision"] == "f32" and rows[0].get("computed_in") == "f32" and row["peer"].startswith("pagebert"):
                # The first row is it, on a machine whose `auto` is f32.
                rows.remove(row)
                continue
            if row["peer"].startswith("PyTorch"):
                # The split is that of the run before.
                options = {"steps": args.steps} if args.steps else {}
                figures, _ = tools.peer(
                    *("accuracy",), data=data, base=base, split=f"{tools.run_folder()}/split.csv",
                    seed=seed, epochs=args.epochs, precision=row["precision"], **options,
                )  # fmt: skip
                row["computed_in"] = row["precision"]
            else:
                settings = {"seed": seed, "split_seed": 0, "epochs": args.epochs, "max_steps": args.steps or 0}
                lines, row["computed_in"], _ = tools.train(data, base, precision=row["precision"], **settings)
                test = next(line for line in lines if line.get("split") == "test")
                valid = min(line["loss"] for line in lines if line.get("split") == "valid")
                figures = {"accuracy": test["accuracy"], "loss": test["loss"], "valid_loss": valid}
            row["runs"].append({"seed": seed, **figures})
            say(f"accuracy, seed {seed} of {args.seeds}: {row['peer']}: {100 * figures['accuracy']:.2f} %")

    def shown(row):
        found = [100 * one["accuracy"] for one in row["runs"]]
        deviation = f"{stdev(found):.2f}" if len(found) > 1 else "one seed"
        each = ", ".join(f"{value:.2f}" for value in found)
        return [row["peer"], row["computed_in"], f"{mean(found):.2f} %", deviation, each]

    columns = ["trained by", "computed in", "test accuracy", "standard deviation", "each seed"]
    text = table.markdown(columns, map(shown, rows))
    tests = next(one["rows"] for row in rows for one in row["runs"] if "rows" in one)
    note = (
        f"{tests:,} test texts of one split (split_seed 0), {args.epochs} epochs"
        f"{f', {args.steps} steps at most' if args.steps else ''}, seeds 1 to {args.seeds}; the same settings "
        "on both sides, and the checkpoint with the least validation loss."
    )
    return {"title": "Accuracy: 6 layers × 384, film reviews", "text": f"{text}\n\n{note}\n", "rows": rows}
