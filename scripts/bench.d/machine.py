"""What a benchmark ran on."""

import json
import os
import platform
import subprocess

VERSIONS = """
import json, platform, torch, transformers
print(json.dumps({
    "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    "torch_cpu": torch.backends.cpu.get_cpu_capability(),
    "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
}))
"""
# What products in bf16 and int8 are fast with.
FLAGS = ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx_vnni", "avx512_vnni", "amx_int8"]


def cores():
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_info():
    """Name and flags, of the first core."""
    found = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return found.get("model name") or platform.processor() or platform.machine(), found.get("flags", "").split()


def trains_in_int8(device):
    """Whether pagebert has instructions for it there."""
    _, flags = _cpu_info()
    return device == "cpu" and ("avx512_vnni" in flags or "amx_int8" in flags)


def facts(python, pagebert):
    name, flags = _cpu_info()

    def output(command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return {
        "cpu": name,
        "cores": cores(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "pagebert": output([pagebert, "--version"]),
        **json.loads(output([python, "-c", VERSIONS])),
    }


def head(facts, device):
    """The facts as the head of the output."""
    flags = ", ".join(facts["flags"]) or "none of " + ", ".join(FLAGS)
    lines = [
        f"Machine: {facts['cpu']}, {facts['cores']} cores, {facts['memory'] / 2**30:.0f} GiB; {flags}; "
        f"{facts['system']}; load before: {facts['load_before']:.2f}",
        f"Versions: {facts['pagebert']}; PyTorch {facts['torch']} ({facts['torch_cpu']}), "
        f"Transformers {facts['transformers']}, Python {facts['python']}",
    ]
    if device != "cpu":
        lines.append(f"Device: {device}, {facts['gpu']}")
    return "\n".join(lines) + "\n"
