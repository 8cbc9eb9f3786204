"""Child processes: what they print, how long they take, how much memory they hold at most."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


class Failed(Exception):
    """A child failed; says which, and what it said last."""

    def __init__(self, command, status, said):
        super().__init__(f"{' '.join(command)}\nexit code {status}: {said}")
        self.status = status


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclass
class Ran:
    """A child that has ended."""

    stdout: str
    seconds: float
    peak: int


def run(command, log):
    """Runs a command to its end. Its stderr goes to a log that the next command overwrites."""
    with open(f"{log}.out", "w+", encoding="utf-8") as out, open(f"{log}.err", "w+", encoding="utf-8") as err:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            # Of this child alone: subprocess would only tell of all together.
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            raise
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode != 0:
            raise Failed(command, child.returncode, err.read()[-2000:].strip())
        # Kibibytes, but on macOS bytes.
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Ran(out.read(), seconds, peak)


class Tools:
    """pagebert and its peer as functions."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.log = os.path.join(work, "log")

    def prepare(self, kind, out, **options):
        """Makes a file or folder of a case, and gives its path."""
        path = os.path.join(self.work, out)
        self._python("prepare.py", kind, out=path, **options)
        return path

    def peer(self, kind, **options):
        """Runs PyTorch: its figures, and the child."""
        ran = self._python("peer.py", kind, threads=self.args.threads, device=self.args.device, **options)
        return json.loads(ran.stdout.splitlines()[-1]), ran

    def _python(self, script, kind, **options):
        command = [self.args.python, os.path.join(HERE, script), kind]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        return run(command, self.log)

    def train(self, data, base, **settings):
        """Runs `pagebert train`: the lines of its log, what it computed in, and the child."""
        out = self.run_folder()
        shutil.rmtree(out, ignore_errors=True)
        settings["threads"] = self.args.threads
        command = [self.args.pagebert, "train", "--quiet", "--data", data, "--base", base, "--out", out]
        command += ["--device", self.args.device, *(f"{key}={value}" for key, value in settings.items())]
        ran = run(command, self.log)
        with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        with open(os.path.join(out, "run.toml"), encoding="utf-8") as file:
            computed_in = re.search(r'^computed_in = "(.*)"', file.read(), re.MULTILINE)[1]
        return lines, computed_in, ran

    def run_folder(self):
        """Where `train` leaves its run."""
        return os.path.join(self.work, "run")

    def evaluate(self, model, data, precision):
        """Runs `pagebert evaluate`: the child."""
        command = [self.args.pagebert, "evaluate", model, "--quiet", "--data", data, "--precision", precision]
        command += ["--device", self.args.device, "--threads", str(self.args.threads)]
        return run(command, self.log)
