"""Compares the page's engine with transformers.js and ONNX Runtime Web on this machine. Called by scripts/bench."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys

import browser_cases
import machine
from runs import HERE, Failed, run, say

ROOT = os.path.dirname(os.path.dirname(HERE))
HELP = {
    "latency": "one text at a time, by tokens and threads, against ONNX Runtime Web",
    "bytes": "over the wire until the first label, against transformers.js",
    "cold": "seconds until the first label, over loopback and 50 Mbit/s",
    "sizes": "each WebAssembly file, as it is and compressed",
    "accuracy": "the page's logits against `pagebert predict`",
    "native": "texts per second of `pagebert predict` against Python's ONNX Runtime",
    "settings": "what ONNX Runtime Web's settings do to its own times",
}


def numbers(text):
    found = [int(one) for one in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text}: every one must be 1 or more")
    return found


def number(text):
    return numbers(text)[0]


def parse():
    cases = "\n".join(f"  {name:10} {text}" for name, text in HELP.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Compares the page's engine with transformers.js and ONNX Runtime Web: one checkpoint, one Chromium,\n"
        "the same texts, the sides taking turns.",
        epilog=f"cases:\n{cases}\n\n"
        "The tables go to stdout, progress to stderr. Times are only worth something on a machine that does\n"
        "nothing else.\n\n"
        "What is missing is installed: Chromium and node (Debian's), npm packages into target/bench-npm, and\n"
        "without --python PyTorch, onnx and onnxruntime into target/bench-venv.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", choices=["browser"], metavar="browser")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (default: all but settings)")
    parser.add_argument("--run", metavar="RUN", help="a fine-tuned checkpoint (default: trains one on the sample)")
    parser.add_argument("--precision", help="of the bundle (default: int8 where pagebert has it, else f16)")
    parser.add_argument("--rounds", type=number, default=20, metavar="N", help="timed calls of latency (default: 20)")
    parser.add_argument("--loads", type=number, default=5, metavar="N", help="of cold and native (default: 5)")
    parser.add_argument(
        *("--tokens",), type=numbers, metavar="N,…",
        default=[16, 64, 128, 256, 512], help="of latency (default: 16,64,128,256,512)",
    )  # fmt: skip
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="N,…", help="of latency (default: 1,2)")
    parser.add_argument("--json", metavar="FILE", help="writes all figures there too")
    parser.add_argument("--python", metavar="PATH", help="a Python that has PyTorch, Transformers, onnx, onnxruntime")
    parser.add_argument("--pagebert", metavar="PATH", help="a pagebert (default: builds it)")
    parser.add_argument("--www", metavar="PATH", help="what scripts/build-web made (default: builds it)")
    parser.add_argument("--chromium", metavar="PATH", help="(default: the one on the path)")
    parser.add_argument("--npm", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--parse-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args()
    unknown = [name for name in args.cases if name not in HELP]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}. There are {', '.join(HELP)}")
    args.cases = args.cases or [name for name in HELP if name != "settings"]
    return args


def sha256(*paths):
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            found.update(file.read())
    return found.hexdigest()


class Bench:
    """Both sides, ready to be measured: a checkpoint, its site, its ONNX models, and what runs them."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.data = os.path.join(ROOT, "sample", "movies.csv")
        self.checkpoint = args.run or os.path.join(work, "run")
        self.bundle, self.site, self.model = (os.path.join(work, name) for name in ("bundle", "site", "onnx"))

    def pagebert(self, *arguments):
        return run([self.args.pagebert, *arguments], os.path.join(self.work, "log"))

    def python(self, script, *arguments, **options):
        command = [self.args.python, os.path.join(HERE, script), *arguments]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        return run(command, os.path.join(self.work, "log"))

    def prepare(self, kind, out, **options):
        """Makes a file of a case, and gives its path."""
        path = os.path.join(self.work, out)
        self.python("prepare.py", kind, out=path, base=self.checkpoint, **options)
        return path

    def drive(self, case, **job):
        """Runs the browser's side of a case. What it says on the way goes to stderr."""
        job |= {"case": case, "npm": self.args.npm, "chromium": self.args.chromium, "site": self.site}
        job |= {"model": self.model, "twins": os.path.join(self.work, "twins")}
        path = os.path.join(self.work, f"{case}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(job, file)
        command = ["node", os.path.join(HERE, "browser", "drive.js"), path]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode != 0:
            raise Failed(command, ran.returncode, "its reasons are above")
        return json.loads(ran.stdout.splitlines()[-1])

    def builds(self):
        """The engine's builds in the site: name and the WebAssembly file."""
        with open(os.path.join(self.site, "engine.json"), encoding="utf-8") as file:
            return {name: os.path.join(self.site, build["wasm"]) for name, build in json.load(file)["builds"].items()}

    def make(self):
        if not self.args.run and not os.path.exists(os.path.join(self.checkpoint, "report.html")):
            say("training a classifier on the sample (once: some minutes)")
            shutil.rmtree(self.checkpoint, ignore_errors=True)
            base = os.path.join(ROOT, "sample", "base")
            self.pagebert(
                *("train", "--quiet", "--data", self.data, "--base", base, "--out", self.checkpoint, "epochs=1")
            )
        if not self.args.precision:
            known = self.pagebert("export", "--help").stdout
            self.args.precision = "int8" if "int8" in known else "f16"
        say(f"exporting in {self.args.precision}")
        for folder in (self.bundle, self.site):
            shutil.rmtree(folder, ignore_errors=True)
        self.pagebert(
            *("export", "--quiet", self.checkpoint, "--out", self.bundle, "--precision", self.args.precision)
        )
        self.pagebert("site", "--quiet", self.bundle, "--out", self.site, "--www", self.args.www)

        made, script = os.path.join(self.work, "onnx.made"), os.path.join(HERE, "export_onnx.py")
        key = sha256(os.path.join(self.checkpoint, "model.safetensors"), script)
        if not os.path.exists(made) or open(made, encoding="utf-8").read() != key:
            say("exporting to ONNX")
            self.python("export_onnx.py", run=self.checkpoint, out=self.model)
            with open(made, "w", encoding="utf-8") as file:
                file.write(key)


ONNX_VERSIONS = """
import json, onnx, onnxruntime
print(json.dumps({"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}))
"""


def main():
    args = parse()
    if args.parse_only:
        return
    work = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "bench", "browser")
    os.makedirs(work, exist_ok=True)
    bench = Bench(args, work)
    bench.make()
    found = {"machine": machine.facts(args.python, args.pagebert), "settings": vars(args), "cases": {}}
    versions = bench.drive("versions")
    versions |= json.loads(run([args.python, "-c", ONNX_VERSIONS], os.path.join(work, "log")).stdout)
    found["machine"] |= versions
    print(
        f"{machine.head(found['machine'], 'cpu')}"
        f"Browser: Chromium {versions['chromium']}; ONNX Runtime Web {versions['onnxruntime_web']}; transformers.js "
        f"{versions['transformers_js']} with ONNX Runtime Web {versions['transformers_js_onnxruntime']}; "
        f"models made with onnx {versions['onnx']}, onnxruntime {versions['onnxruntime']}\n",
        flush=True,
    )
    for name in args.cases:
        case = getattr(browser_cases, name)(bench)
        print(f"## {case['title']}\n\n{case.pop('text')}", flush=True)
        found["cases"][name] = case
        if args.json:
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
