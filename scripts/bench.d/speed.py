"""Cases of training speed against PyTorch: which texts, which peers, what is timed."""

import json
from dataclasses import dataclass

import machine
import table
from runs import say

# Steps at the start that nobody's time is taken of.
UNTIMED = 3
# How far the first losses may be apart: both compute in f32, but add in other orders.
SAME_LOSS = 1e-3
# So that no evaluation and no saving falls between the steps.
STEPS_ALONE = {"eval_every": 1_000_000_000, "valid_fraction": 0, "test_fraction": 0, "epochs": 10_000}


@dataclass
class Peer:
    """One side of a comparison: pagebert, or with an order PyTorch."""

    title: str
    precision: str
    order: str = ""


AUTO = Peer("pagebert", "auto")
F32 = Peer("pagebert, precision=f32", "f32")
# Where the processor multiplies bytes.
INT8 = Peer("pagebert, precision=int8", "int8")
PLAIN = Peer("PyTorch, default loop: f32, random order", "f32", "random")
BEST = Peer("PyTorch, bf16 autocast, pagebert's batches", "bf16", "planned")
BEST_F32 = Peer("PyTorch, f32, pagebert's batches", "f32", "planned")
# On a GPU nobody trains in f32.
PLAIN_GPU = Peer("PyTorch, default loop in bf16 autocast, random order", "bf16", "random")


@dataclass
class Case:
    """Texts, a base and a batch size; `make` prepares data and base."""

    title: str
    steps: int
    batch: int
    peers: list
    peers_gpu: list
    make: object


def _sample(csv):
    def make(tools, root, _rows):
        data = f"{root}/sample/{csv}"
        base = tools.prepare("base-with-classifier", f"{csv}-base", base=f"{root}/sample/base", data=data)
        return data, base

    return make


def _bert_base(tools, root, rows):
    sample = f"{root}/sample/base"
    data = tools.prepare("even-texts", "even.csv", base=sample, rows=max(rows, 32), tokens=128)
    return data, tools.prepare("bert-base", "bert-base", base=sample)


CASES = {
    "short": Case(
        "Short texts: 6 layers × 384, film reviews, batches of 32",
        *(40, 32, [AUTO, INT8, F32, PLAIN, BEST, BEST_F32], [AUTO, F32, PLAIN_GPU, BEST], _sample("movies.csv")),
    ),
    "long": Case(
        "Long texts, cut at 512 tokens: 6 layers × 384, editorials and product reviews, batches of 8",
        *(20, 8, [AUTO, INT8, F32, PLAIN, BEST, BEST_F32], [AUTO, F32, PLAIN_GPU, BEST], _sample("documents.csv")),
    ),
    "base": Case(
        "BERT-base: 12 layers × 768, batches of 16 texts × 128 tokens",
        *(8, 16, [AUTO, INT8, BEST], [AUTO, BEST], _bert_base),
    ),
}


def _settings(args, case, steps):
    """What both sides are told, by pagebert's names."""
    return {"max_steps": steps, "batch_size": case.batch, "max_tokens": 512, "max_windows": 1, "seed": args.seed}


def _pagebert(tools, case, paths, plan, precision, steps, **settings):
    """Losses of all steps, seconds of the timed ones, what it computed in, and the child."""
    settings = {**_settings(tools.args, case, steps), **STEPS_ALONE, "log_every": 1, **settings}
    lines, computed_in, ran = tools.train(*paths, precision=precision, **settings)
    lines = [line for line in lines if "tokens_per_s" in line][:steps]
    # A line has the speed since the one before; with a line a step, the tokens are the batch's.
    timed = list(zip(lines, plan["tokens"]))[UNTIMED:]
    seconds = sum(tokens / max(line["tokens_per_s"], 1) for line, tokens in timed)
    return [line["loss"] for line in lines], seconds, computed_in, ran


def _torch(tools, case, paths, plan_path, peer, steps, **options):
    data, base = paths
    return tools.peer(
        *("train",), data=data, base=base, plan=plan_path, order=peer.order, precision=peer.precision,
        steps=steps, batch=case.batch, max_tokens=512, seed=tools.args.seed, **options,
    )  # fmt: skip


def _check(tools, name, case, paths, plan, plan_path):
    """Whether both sides do the same work: without dropout, their first losses are the same."""
    ours, _, _, _ = _pagebert(tools, case, paths, plan, "f32", UNTIMED, dropout=0)
    theirs, _ = _torch(tools, case, paths, plan_path, BEST_F32, UNTIMED, dropout=0)
    apart = max(abs(a - b) for a, b in zip(ours, theirs["losses"], strict=True))
    first = f"{name}: without dropout the first {UNTIMED} losses differ by at most {apart:.1e}"
    say(first)
    if not apart <= SAME_LOSS:
        raise SystemExit(f"{first}: {ours}, {theirs['losses']}. The two do not train on the same batches")
    return {"pagebert": ours, "torch": theirs["losses"]}


def run(tools, root, name):
    """Runs a case, the sides taking turns: its table and its figures."""
    args, case = tools.args, CASES[name]
    timed = args.steps or case.steps
    steps = timed + UNTIMED
    say(f"{name}: preparing")
    paths = case.make(tools, root, steps * case.batch)
    data, base = paths
    plan_path = tools.prepare(
        *("plan", f"{name}-plan.json"), data=data, base=base, batch=case.batch, steps=steps, seed=args.seed
    )
    with open(plan_path, encoding="utf-8") as file:
        plan = json.load(file)
    losses = _check(tools, name, case, paths, plan, plan_path)

    peers = case.peers if args.device == "cpu" else case.peers_gpu
    peers = [peer for peer in peers if args.precision in (None, peer.precision)]
    peers = [peer for peer in peers if peer.precision != "int8" or machine.trains_in_int8(args.device)]
    rows = [{"peer": peer.title, "tokens_per_s": [], "peak_bytes": []} for peer in peers]
    for number in range(args.rounds):
        for peer, row in zip(peers, rows):
            if peer.order:
                figures, ran = _torch(tools, case, paths, plan_path, peer, steps, untimed=UNTIMED)
                tokens, seconds, row["computed_in"] = figures["tokens"], figures["seconds"], peer.precision
            else:
                tokens = sum(plan["tokens"][UNTIMED:])
                _, seconds, row["computed_in"], ran = _pagebert(tools, case, paths, plan, peer.precision, steps)
            if seconds > ran.seconds:
                raise SystemExit(f"{peer.title}: {seconds:.1f} s of steps in a process of {ran.seconds:.1f} s")
            row["tokens_per_s"].append(tokens / seconds)
            row["peak_bytes"].append(ran.peak)
            say(f"{name}, round {number + 1} of {args.rounds}: {peer.title}: {tokens / seconds:,.0f} tokens/s")
    against = [("pagebert against it", rows[0])]
    against += [("in int8 against it", row) for row in rows[1:] if row["computed_in"] == "int8"]
    text = table.markdown(
        ["trained by", "computed in", "tokens/s", *(column for column, _ in against), "peak memory"],
        [
            [
                *(row["peer"], row["computed_in"], table.spread(row["tokens_per_s"])),
                *(table.ratio(ours["tokens_per_s"], row["tokens_per_s"]) for _, ours in against),
                table.mebibytes(max(row["peak_bytes"])),
            ]
            for row in rows
        ],
    )
    note = (
        f"{timed} steps after {UNTIMED} untimed ones, {sum(plan['tokens'][UNTIMED:]):,} real tokens; median of "
        f"{args.rounds} rounds (least to most). Padding is not counted."
    )
    return {"title": case.title, "text": f"{text}\n\n{note}\n", "rows": rows, "first_losses": losses}
