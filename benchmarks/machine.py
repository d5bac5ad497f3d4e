"""What a measurement was made on: printed above every table."""

import os
import platform
from pathlib import Path

from srd_onnx.ort.runtime import versions


def header(seed: int, threads: int) -> str:
    """Machine, versions, threads and seed, one line each."""
    cpus = Path("/proc/cpuinfo")
    names = [
        n for n in (cpus.read_text().splitlines() if cpus.exists() else []) if n.startswith("model name")
    ]
    name = names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
    known = ", ".join(f"{package} {version}" for package, version in versions().items())
    machine = f"machine: {name}, {os.cpu_count()} cores, {platform.system()}"
    return f"{machine}\nversions: {known}\nthreads: {threads}, seed: {seed}"
