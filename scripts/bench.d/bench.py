"""Compares `pagebert train` with PyTorch and Transformers on this machine. Called by scripts/bench."""

import argparse
import json
import os
import sys

import machine
import others
import speed
from runs import Failed, Tools, say

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HELP = {
    "short": "film reviews, 6 layers × 384, batches of 32",
    "long": "texts of up to 512 tokens, batches of 8",
    "base": "12 layers × 768, batches of 16 texts × 128 tokens",
    "evaluate": "texts per second of a finished model",
    "scale": "pagebert alone, on 1,000 to 1,000,000 rows",
    "accuracy": "test accuracy over seeds; takes the longest",
}


def parse():
    cases = "\n".join(f"  {name:10} {text}" for name, text in HELP.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares pagebert with PyTorch and Transformers on this machine, the same texts in the same\n"
        "batches of the same size on both sides. Every run is a process of its own; the sides take turns.",
        epilog=f"cases:\n{cases}\n\n"
        "Speed is real tokens per second, padding not counted, over whole steps: making the batch, forward,\n"
        "backward, clipping, AdamW. The table goes to stdout, progress to stderr. Times are only worth\n"
        "something on a machine that does nothing else.\n\n"
        "Without --python PyTorch is installed into target/bench-venv, from where pip is set up to look.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=["train"], metavar="train")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (default: all but accuracy)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="runs of each side (default: 3)")
    parser.add_argument(
        *("--steps",), type=positive, metavar="N",
        help="timed steps (default: 40 in short, 20 in long and scale, 8 in base); of accuracy, the most steps",
    )  # fmt: skip
    parser.add_argument("--texts", type=positive, default=4000, metavar="N", help="of evaluate (default: 4000)")
    parser.add_argument(
        *("--rows",), type=lambda text: [positive(one) for one in text.split(",")], metavar="N,…",
        default=[1000, 100_000, 1_000_000], help="of scale (default: 1000,100000,1000000)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="of accuracy (default: 3)")
    parser.add_argument("--epochs", type=positive, default=3, metavar="N", help="of accuracy (default: 3)")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="of the batches' order (default: 42)")
    parser.add_argument("--threads", type=positive, default=machine.cores(), metavar="N", help="default: every core")
    parser.add_argument(
        *("--precision",), choices=["f32", "bf16", "int8"],
        help="only the sides that are told to compute in it: f32 of short, long and evaluate, bf16 and int8 of evaluate; PyTorch "
        "takes minutes for bf16 on processors without it",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", metavar="FILE", help="writes all figures there too")
    parser.add_argument("--python", metavar="PATH", help="a Python that has PyTorch and Transformers")
    parser.add_argument("--pagebert", metavar="PATH", help="a pagebert (default: builds it)")
    parser.add_argument("--parse-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    unknown = [name for name in args.cases if name not in HELP]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}. There are {', '.join(HELP)}")
    of_precision = {"f32": ["short", "long", "evaluate"], "bf16": ["evaluate"], "int8": ["evaluate"]}.get(args.precision)
    if of_precision:
        args.cases = args.cases or of_precision
        without = [name for name in args.cases if name not in of_precision]
        if without:
            parser.error(f"--precision {args.precision} is of {', '.join(of_precision)}, not of {', '.join(without)}")
    if args.precision == "int8" and not machine.trains_in_int8(args.device):
        parser.error("--precision int8: this processor has no instructions for products of bytes")
    args.cases = args.cases or [name for name in HELP if name != "accuracy"]
    return args


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main():
    args = parse()
    if args.parse_only:
        return
    work = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "bench")
    os.makedirs(work, exist_ok=True)
    tools = Tools(args, work)
    found = {"machine": machine.facts(args.python, args.pagebert), "settings": vars(args), "cases": {}}
    print(machine.head(found["machine"], args.device), flush=True)
    for name in args.cases:
        case = speed.run(tools, ROOT, name) if name in speed.CASES else getattr(others, name)(tools, ROOT)
        print(f"## {case['title']}\n\n{case.pop('text')}", flush=True)
        found["cases"][name] = case
        if args.json:
            # After each case: the next may take an hour.
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(found, file, indent=1)
                file.write("\n")


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        say(str(failed))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
