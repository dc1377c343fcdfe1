"""Prints the syndromes that QEMU gives to the exceptions of traps.s, a line each: ESR, exception level, origin.

They are the values of tests/unit/data/syndromes.txt that are said to come from QEMU.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("traps.s")
MACHINE = ("-M", "virt,virtualization=on", "-cpu", "max,pauth-impdef=on", "-m", "1024", "-display", "none")


def collect(directory: Path) -> dict[tuple[int, int], None]:
    """Return (ESR, EL) of every exception that has a syndrome, in order of first appearance."""
    image, log = directory / "traps.elf", directory / "log"
    subprocess.run(["aarch64-linux-gnu-as", "-o", str(directory / "traps.o"), str(SOURCE)], check=True)
    link = ["aarch64-linux-gnu-ld", "-Ttext=0x40080000", "-e", "_start", "-o", str(image)]
    subprocess.run([*link, str(directory / "traps.o")], check=True)
    command = [
        "qemu-system-aarch64",
        *MACHINE,
        "-nodefaults",
        "-kernel",
        str(image),
        "-d",
        "int",
        "-D",
        str(log),
    ]
    with subprocess.Popen(command) as qemu:
        try:
            qemu.wait(3)
        except subprocess.TimeoutExpired:
            qemu.kill()
    pattern = r"to EL([12])\n(?:\.\.\.with ESR 0x[0-9a-f]+/(0x[0-9a-f]+))"
    found = re.findall(pattern, log.read_text(encoding="utf-8"))
    return {(int(esr, 16), int(level)): None for level, esr in found}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for esr, level in collect(Path(directory)):
            print(f"0x{esr:08x} {level} QEMU 7.2, tests/tools/traps.s")


if __name__ == "__main__":
    main()
