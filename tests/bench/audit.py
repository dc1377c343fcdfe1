"""How long an audit and a search take offline: a VM of 4 GiB in 4 KiB pages, a million leaves, and a host as large.

Run it as a script. It writes an image of the tables, asks ``gdbhyp audit`` in a process of its own, and reports that
process's time and peak memory; then it asks for addresses with the index made. The VM's pages are scattered, so that
no two of them merge, which is the worst case; the host's are in order, or scattered too.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from gdbhyp.analyses.find import find
from gdbhyp.targets.dump import open_dump

PAGES, PAGE = 1 << 20, 1 << 12
BASE = 0x1_0000_0000
GUEST, HOST = 0x4_0000_0000, 0x1_0000_0000
S2_LEAF = 1 << 10 | 3 << 8 | 0b11 << 6 | 0b1111 << 2 | 3
S1_LEAF = 1 << 10 | 3 << 8 | 0b11 << 53 | 3
SCATTER = 0x9E371


def tree(base: int, output: int, leaf: int, scatter: int) -> bytes:
    """Return tables from ``base`` on for 4 GiB: a root page, 4 tables of level 2, 2048 of level 3."""
    last = base + 5 * PAGE
    root = array("Q", [base + PAGE * (1 + i) | 3 for i in range(4)] + [0] * 508)
    middle = array("Q", [last + PAGE * i | 3 for i in range(2048)])
    pages = array("Q", [output + ((i * scatter & PAGES - 1) << 12) | leaf for i in range(PAGES)])
    return (root + middle + pages).tobytes()


def write(folder: Path, host_scatter: int) -> tuple[str, Path]:
    """Write the image and the registers."""
    guest = tree(BASE, GUEST, S2_LEAF, SCATTER)
    top = BASE + len(guest)
    host = tree(top + PAGE, HOST, S1_LEAF, host_scatter)
    root0 = array("Q", [top + PAGE | 3] + [0] * 511).tobytes()
    (folder / "ram").write_bytes(guest + root0 + host)
    registers = {
        "ID_AA64MMFR0_EL1": 5,
        "ID_AA64MMFR1_EL1": 2 << 4,
        "HCR_EL2": 1 << 31,
        "CPSR": 5,
        "PC": 0,
        "VTTBR_EL2": BASE | 1 << 48,
        "VTCR_EL2": 0x8000_0000 | 5 << 16 | 3 << 12 | 5 << 8 | 1 << 6 | 25,
        "SCTLR_EL1": 5,
        "TCR_EL1": 16 << 16 | 16 | 1 << 7 | 0b10 << 30 | 5 << 32,
        "MAIR_EL1": 0xFF,
        "TTBR0_EL1": 0,
        "TTBR1_EL1": top,
        "SCTLR_EL2": 0,
        "TCR_EL2": 16 | 5 << 16,
        "MAIR_EL2": 0xFF,
        "TTBR0_EL2": 0,
    }
    (folder / "registers").write_text(json.dumps({name: hex(value) for name, value in registers.items()}))
    return f"{folder / 'ram'}@{BASE:#x}", folder / "registers"


def audit(dump: str, registers: Path) -> tuple[float, int]:
    """Return the processor seconds and the peak memory, in bytes, of one audit."""
    code = (
        "import resource, sys; from gdbhyp.cli.main import main; main(sys.argv[1:]);"
        "use = resource.getrusage(resource.RUSAGE_SELF);"
        "print(use.ru_utime + use.ru_stime, use.ru_maxrss * 1024, file=sys.stderr)"
    )
    words = ["audit", dump, "--registers", str(registers), "--json"]
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    report = json.loads(run.stdout)
    ranges = {tree["tree"]: tree["ranges"] for tree in report["compared"]}
    print(f"  {ranges}, {len(report['findings'])} findings")
    seconds, peak = run.stderr.split()
    return float(seconds), int(peak)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        for host_scatter in (1, SCATTER):
            dump, registers = write(Path(name), host_scatter)
            seconds, peak = audit(dump, registers)
            kind = "scattered" if host_scatter > 1 else "in order"
            print(f"audit, host {kind}: {seconds:.1f} s, {peak / 1e6:.0f} MB")
        values = {n: int(v, 16) for n, v in json.loads(registers.read_text()).items()}
        stop = open_dump(dump).stop(None, values)
        start = time.process_time()
        find(stop, GUEST, GUEST + 1)
        print(f"find, first: {time.process_time() - start:.1f} s")
        start = time.process_time()
        for page in range(1000):
            assert len(find(stop, GUEST + page * PAGE, GUEST + page * PAGE + 1).mappings) == 2
        print(f"find, next: {(time.process_time() - start):.2f} ms")
        print(f"peak with the index: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
