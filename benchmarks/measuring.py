"""What every benchmark states of itself: the commit, the machine, the versions; its peak memory."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# What decides which kernels a library takes.
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
)


def peak_bytes() -> int:
    """Return this process's resident high-water mark; getrusage would count the parent's too."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def commit_id() -> str:
    """Read the checked-out commit from the repository's files."""
    head = ROOT / ".git" / "HEAD"
    if not head.exists():
        return "unknown"
    text = head.read_text("ascii").strip()
    if not text.startswith("ref: "):
        return text
    reference = text.removeprefix("ref: ")
    loose, packed = ROOT / ".git" / reference, ROOT / ".git" / "packed-refs"
    if loose.exists():
        return loose.read_text("ascii").strip()
    lines = packed.read_text("ascii").splitlines() if packed.exists() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {reference}")), "unknown")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("fastdllm", "onnxruntime", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine() -> dict[str, Any]:
    """Describe what a number depends on, and nothing that names the machine."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    words = {w for line in lines if line.startswith(("flags", "Features")) for w in line.split()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gigabytes": round(memory / 1e9, 1),
        "flags": [flag for flag in FLAGS if flag in words],
        "system": platform.system(),
    }


def head(**more: Any) -> dict[str, Any]:
    """Begin a report: commit, date, machine, versions, then what is given."""
    return {
        "commit": commit_id(),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
    } | more
