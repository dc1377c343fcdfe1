"""Writes down what the demo hypervisor is, so that tests have something to compare a debugger's answers with.

Reads the output of `nm` on standard input (the constants of layout.inc, and the symbols of demo.elf and
guest.elf) and prints one JSON object. Nothing here decodes anything: which exception each instruction causes,
and what each VM maps, is written by hand from the comments in guest.s and hyp-tables.s and from the Arm ARM.

    python3 truth.py PLANTED_BUG < nm-output > truth.json

Addresses and register values are "0x..." strings, everything else is as it is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

PAGE = 0x1000
BLOCK = 0x200000
INSTRUCTION = 4

# ESR_EL2: EC [31:26], IL [25], ISS [24:0]. All instructions of A64 are 32 bits long: IL = 1.
IL = 1 << 25
# ISS of a Data Abort with a valid syndrome: ISV [24], SAS [23:22], SSE [21], SRT [20:16], SF [15]; always:
# S1PTW [7], WnR [6], DFSC [5:0] = kind [5:2] and level [1:0].
S1PTW = 1 << 7
WNR = 1 << 6
# ISS of WFI and of FP: CV [24] = 1 and COND [23:20] = 0b1110, as always in A64.
ALWAYS = 1 << 24 | 0xE << 20
FAULT_STATUS = {"address_size": 0x00, "translation": 0x04, "access_flag": 0x08, "permission": 0x0C}

Json = dict[str, Any]


def isv(sas: int, srt: int, *, sse: int = 0, sf: int = 0) -> int:
    """The part of a Data Abort's ISS that describes the instruction: size 1 << sas bytes, register srt."""
    return 1 << 24 | sas << 22 | sse << 21 | srt << 16 | sf << 15


def sys64(op0: int, op1: int, crn: int, crm: int, op2: int, rt: int, *, read: bool) -> int:
    """ISS of a trapped MRS or MSR."""
    return op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | rt << 5 | crm << 1 | read


@dataclass(frozen=True)
class Abort:
    """A stage-2 fault of the guest: VA and IPA by the names that they have in layout.inc, plus offsets."""

    va: str
    ipa: str
    offset: int
    kind: str
    level: int
    s1ptw: bool = False


@dataclass(frozen=True)
class Site:
    """An instruction of guest.s that traps: `iss` without what `abort` adds (S1PTW and the fault status)."""

    symbol: str
    what: str
    ec: int
    iss: int
    abort: Abort | None = None
    elr_offset: int = 0
    needs: str | None = None


def sites(vm: str) -> tuple[Site, ...]:
    """The guest's tour, in its order. They differ in one thing: only VM B has a level-2 table for IPA 0."""
    mmio_level = 1 if vm == "a" else 2
    dabt, iabt = 0x24, 0x20
    return (
        Site("guest_hvc", "hvc", 0x16, 0, elr_offset=INSTRUCTION),
        Site("guest_smc", "smc", 0x17, 0),
        Site("guest_mmio_load", "mmio_load", dabt, isv(2, 4),
             Abort("VA_MMIO", "IPA_MMIO", 0x18, "translation", mmio_level)),
        Site("guest_mmio_store", "mmio_store", dabt, isv(3, 5, sf=1) | WNR,
             Abort("VA_MMIO", "IPA_MMIO", 0, "translation", mmio_level)),
        Site("guest_perm_store", "permission", dabt, isv(2, 5) | WNR,
             Abort("VA_RO", "IPA_RO_PAGES", 0x128, "permission", 3)),
        Site("guest_perm_store_block", "permission", dabt, WNR,
             Abort("VA_RO_BLOCK", "IPA_RO_BLOCK", 0x123450, "permission", 2)),
        Site("guest_af_load", "access_flag", dabt, isv(1, 6),
             Abort("VA_AF", "IPA_AF_PAGE", 0x340, "access_flag", 3)),
        Site("guest_asize_load", "address_size", dabt, isv(0, 6, sse=1, sf=1),
             Abort("VA_ASIZE", "IPA_ASIZE_PAGE", 0x568, "address_size", 3)),
        Site("guest_s1ptw_load", "s1ptw", dabt, 0,
             Abort("VA_S1PTW", "IPA_HOLE_TABLE", 0x780, "translation", 3, s1ptw=True)),
        Site("guest_s1ptw_perm_load", "s1ptw", dabt, 0,
             Abort("VA_S1PTW_PERM", "IPA_NOACCESS_PAGE", 0x9A8, "permission", 3, s1ptw=True)),
        Site("guest_iabt_unmapped", "instruction_abort", iabt, 0,
             Abort("VA_HOLE_CODE", "IPA_HOLE_CODE", 0x40, "translation", 3)),
        Site("guest_iabt_xn", "instruction_abort", iabt, 0,
             Abort("VA_XN", "IPA_XN_PAGE", 0x80, "permission", 3)),
        Site("guest_mrs", "mrs", 0x18, sys64(3, 0, 0, 4, 0, 3, read=True)),
        Site("guest_msr", "msr", 0x18, sys64(3, 0, 12, 11, 5, 7, read=False)),
        Site("guest_fp", "fp", 0x07, ALWAYS),
        Site("guest_sve", "sve", 0x19, 0, needs="sve"),
        Site("guest_wfi", "wfi", 0x01, ALWAYS),
    )  # fmt: skip


def stage2_rows(vm: str, value: dict[str, int]) -> list[tuple[str, int, int, int, str, str]]:
    """What a VM maps, ascending by IPA and merged: (IPA, size, PA, level, flags, memory).

    Flags: r, w, x; then `a` for an access flag that is clear, `c` for the contiguous hint, and `!` for an
    output address that is too large to be reached.
    """
    letter = vm.upper()
    pages = value[f"VM_{letter}_PAGES"]
    rows = [
        ("IPA_UART", PAGE, value["UART_PA"], 3, "rw", "device-nGnRE"),
        ("IPA_RAM", BLOCK, value[f"VM_{letter}_RAM"], 2, "rwx", "normal-wb"),
        ("IPA_SCATTERED", PAGE, pages + 0x3000, 3, "rw", "normal-wb"),
        ("IPA_SCATTERED+0x1000", PAGE, pages + 0x2000, 3, "rw", "normal-wb"),
        ("IPA_SCATTERED+0x2000", PAGE, pages + 0x1000, 3, "rw", "normal-wb"),
        ("IPA_SCATTERED+0x3000", PAGE, pages, 3, "rw", "normal-wb"),
        ("IPA_RO_PAGES", 2 * PAGE, pages + 0x4000, 3, "r", "normal-wb"),
        ("IPA_ROX_PAGE", PAGE, pages + 0x6000, 3, "rx", "normal-wb"),
        ("IPA_AF_PAGE", PAGE, pages + 0x7000, 3, "rwa", "normal-wb"),
        ("IPA_NOACCESS_PAGE", PAGE, pages + 0x8000, 3, "", "normal-wb"),
        ("IPA_XN_PAGE", PAGE, pages + 0x9000, 3, "rw", "normal-wb"),
        ("IPA_ASIZE_PAGE", PAGE, value["ASIZE_PA"], 3, "rw!", "normal-wb"),
        ("IPA_NC_PAGE", PAGE, pages + 0xB000, 3, "rw", "normal-nc"),
        ("IPA_WO_PAGE", PAGE, pages + 0xE000, 3, "w", "normal-wb"),
        ("IPA_SHARED_PAGE", PAGE, value["SHARED_PAGE_PA"], 3, "rw", "normal-wb"),
        ("IPA_CONTIGUOUS", 16 * PAGE, pages + 0x10000, 3, "rwc", "normal-wb"),
        ("IPA_RO_BLOCK", BLOCK, value[f"VM_{letter}_RO_BLOCK"], 2, "r", "normal-wb"),
        ("IPA_HEAP_BLOCK", BLOCK, value[f"VM_{letter}_HEAP"], 2, "rw", "normal-wb"),
        ("IPA_HIGH_BLOCK", BLOCK, value[f"VM_{letter}_HIGH"], 2, "rw", "normal-wb"),
    ]
    if vm == "b":
        rows.insert(0, ("0", BLOCK, value["VM_B_ROM"], 2, "rx", "normal-wb"))
    return rows


class Truth:
    """The values of all symbols, and the JSON that follows from them."""

    def __init__(self, value: dict[str, int]) -> None:
        self.value = value

    def at(self, name: str) -> int:
        """The value of NAME, NAME+0xOFFSET, or of a number."""
        base, _, offset = name.partition("+")
        return (int(base, 0) if base.isdigit() else self.value[base]) + int(offset or "0", 0)

    def stage2_map(self, vm: str) -> list[Json]:
        """All that the stage 2 of a VM maps, ascending."""
        return [
            {
                "start": hex(self.at(ipa)),
                "end": hex(self.at(ipa) + size),
                "pa": hex(pa),
                "level": level,
                "page_size": BLOCK if level == 2 else PAGE,
                "read": "r" in flags,
                "write": "w" in flags,
                "exec": "x" in flags,
                "memory": memory,
                "access_flag": "a" not in flags,
                "contiguous": "c" in flags,
                "fault": "address_size" if "!" in flags else "access_flag" if "a" in flags else None,
            }
            for ipa, size, pa, level, flags, memory in stage2_rows(vm, self.value)
        ]

    def ipa_to_pa(self, vm: str, ipa: int) -> int | None:
        """Where stage 2 maps an IPA, permissions aside."""
        for row in self.stage2_map(vm):
            start, end, pa = (int(row[key], 16) for key in ("start", "end", "pa"))
            if start <= ipa < end and row["fault"] != "address_size":
                return pa + ipa - start
        return None

    def site(self, vm: str, site: Site) -> Json:
        """One trap: every register that it leaves, and where its address leads."""
        address = self.value[site.symbol]
        row: Json = {
            "vm": vm,
            "vmid": self.value[f"VMID_{vm.upper()}"],
            "symbol": site.symbol,
            "address": hex(address),
            "elr": hex(address + site.elr_offset),
            "kind": site.what,
            "needs": site.needs,
            "ec": site.ec,
            "va": None,
            "ipa": None,
            "pa": None,
            "fault": None,
            "hpfar": None,
            "hpfar_valid": False,
            "ipa_method": None,
        }
        iss = site.iss
        abort = site.abort
        if abort is not None:
            iss |= FAULT_STATUS[abort.kind] | abort.level | (S1PTW if abort.s1ptw else 0)
            va, ipa = self.value[abort.va] + abort.offset, self.value[abort.ipa] + abort.offset
            if abort.s1ptw:  # what could not be accessed is the stage-1 level-3 descriptor of the VA
                ipa = self.value[abort.ipa] + 8 * (va >> 12 & 511)
            # A stage-2 Permission fault that is not on a stage-1 walk leaves HPFAR_EL2 UNKNOWN.
            valid = abort.s1ptw or abort.kind != "permission"
            pa = self.ipa_to_pa(vm, ipa)
            row |= {
                "va": hex(va),
                "ipa": hex(ipa),
                "pa": None if pa is None else hex(pa),
                "fault": {"kind": abort.kind, "stage": 2, "level": abort.level, "s1ptw": abort.s1ptw},
                "hpfar": hex(ipa >> 12 << 4),
                "hpfar_valid": valid,
                "ipa_method": "hpfar" if valid else "stage1_walk",
            }
        return row | {"iss": hex(iss), "esr": hex(site.ec << 26 | IL | iss)}

    def vm(self, vm: str) -> Json:
        """A VM: its registers, its vCPUs, its memory, and what traps in it."""
        vmid = self.value[f"VMID_{vm.upper()}"]
        vttbr = vmid << 48 | self.to_pa("HYP", self.value[f"vm_{vm}_root"])
        contexts = [self.value[f"vcpu_{vm}{cpu}"] for cpu in range(self.value["MAX_CPUS"])]
        return {
            "name": vm,
            "vmid": vmid,
            "vttbr": hex(vttbr),
            "vtcr": hex(self.value["VTCR_EL2_VALUE"]),
            "vcpus": [
                {"vcpu": cpu, "cpu": cpu, "context_va": hex(va), "context_pa": hex(self.to_pa("HYP", va))}
                for cpu, va in enumerate(contexts)
            ],
            "map": self.stage2_map(vm),
            "sites": [self.site(vm, site) for site in sites(vm)],
        }

    def to_pa(self, image: str, va: int) -> int:
        """The PA of a VA in the image of the hypervisor (HYP) or of the host (HOST)."""
        return va - self.value[f"{image}_VA"] + self.value[f"{image}_PA"]

    def image_map(self, image: str, space: str, target: int, parts: dict[str, str]) -> list[Json]:
        """The pages of an image, which its stage 1 maps part by part: {part: permissions}."""
        base = self.value[f"{image}_VA"]
        return [
            mapping(base + offset, count * PAGE, space, target + offset, flags)
            for part, flags in parts.items()
            for offset, count in [(self.value[f"{image}_{part}"], self.value[f"{image}_{part}_PAGES"])]
        ]

    def stage1_maps(self) -> Json:
        """What each stage 1 maps: EL2's and the host's to PAs, the guests' to IPAs."""
        value = self.value
        image = {"TEXT": "rx", "RODATA": "r", "DATA": "rw"}
        window = [
            ("VA_MMIO", PAGE, "IPA_MMIO", "rw"),
            ("VA_SCATTERED", 4 * PAGE, "IPA_SCATTERED", "rw"),
            ("VA_RO", 2 * PAGE, "IPA_RO_PAGES", "rw"),
            ("VA_AF", PAGE, "IPA_AF_PAGE", "rw"),
            ("VA_XN", PAGE, "IPA_XN_PAGE", "rwx"),
            ("VA_HOLE_CODE", PAGE, "IPA_HOLE_CODE", "rwx"),
            ("VA_ASIZE", PAGE, "IPA_ASIZE_PAGE", "rw"),
            ("VA_UART", PAGE, "IPA_UART", "rw"),
            ("VA_SHARED", PAGE, "IPA_SHARED_PAGE", "rw"),
            ("VA_HIGH", BLOCK, "IPA_HIGH_BLOCK", "rw"),
            ("VA_RO_BLOCK", BLOCK, "IPA_RO_BLOCK", "rw"),
        ]
        return {
            "el2": [
                mapping(value["BOOT_BLOCK_PA"], BLOCK, "pa", value["BOOT_BLOCK_PA"], "rx"),
                *self.image_map("HYP", "pa", value["HYP_PA"], image | {"SHARED": "rw"}),
                mapping(value["HYP_UART_VA"], BLOCK, "pa", value["UART_PA"], "rw"),
            ],
            "host": [
                *self.image_map("HOST", "pa", value["HOST_PA"], image),
                mapping(
                    value["HOST_VA"] + value["HOST_SHARED"],
                    value["HYP_SHARED_PAGES"] * PAGE,
                    "pa",
                    value["HYP_PA"] + value["HYP_SHARED"],
                    "rw",
                ),
            ],
            "guest": [
                *(mapping(value[va], size, "ipa", value[ipa], flags) for va, size, ipa, flags in window),
                *self.image_map(
                    "GUEST", "ipa", value["GUEST_IPA"], {"TEXT": "rx", "TABLES": "r", "DATA": "rw"}
                ),
            ],
        }

    def registers(self) -> Json:
        """The registers that say how addresses are translated: EL2's, and what each world switch changes."""
        value = self.value
        tables = value["GUEST_IPA"] + value["GUEST_TABLES"]
        el1 = {"SCTLR_EL1": value["SCTLR_EL1_VALUE"], "MAIR_EL1": value["MAIR_VALUE"]}
        worlds = {
            "el2": {
                "SCTLR_EL2": value["SCTLR_EL2_VALUE"],
                "TCR_EL2": value["TCR_EL2_VALUE"],
                "MAIR_EL2": value["MAIR_VALUE"],
                "TTBR0_EL2": self.to_pa("HYP", value["hyp_l0"]),
                "VBAR_EL2": value["hyp_vectors"],
                "VTCR_EL2": value["VTCR_EL2_VALUE"],
            },
            "host": el1
            | {
                "HCR_EL2": value["HCR_HOST"],
                "CPTR_EL2": value["CPTR_HOST"],
                "VTTBR_EL2": 0,
                "TCR_EL1": value["TCR_EL1_HOST"],
                "TTBR1_EL1": self.to_pa("HOST", value["host_l0"]),
                "VBAR_EL1": value["host_vectors"],
            },
            "guest": el1
            | {
                "HCR_EL2": value["HCR_GUEST"],
                "CPTR_EL2": value["CPTR_GUEST"],
                "TCR_EL1": value["TCR_EL1_GUEST"],
                "TTBR0_EL1": value["GUEST_ASID"] << 48 | tables,
                "TTBR1_EL1": tables + 4 * PAGE,
                "VBAR_EL1": value["guest_vectors"],
            },
        }
        return {
            world: {name: hex(number) for name, number in names.items()} for world, names in worlds.items()
        }

    def report(self, planted_bug: bool) -> Json:
        """Everything."""
        names = {name for name in self.value if name.startswith(("CTX_", "VCPU_"))}
        return {
            "planted_bug": planted_bug,
            "max_cpus": self.value["MAX_CPUS"],
            "registers": self.registers(),
            "stage1": self.stage1_maps(),
            "vms": [self.vm("a"), self.vm("b")],
            "context_layout": {name: self.value[name] for name in sorted(names)},
            "symbols": {name: hex(number) for name, number in sorted(self.value.items()) if name.islower()},
        }


def mapping(va: int, size: int, space: str, target: int, flags: str) -> Json:
    """A range of a stage 1, with the permissions of its own EL."""
    return {
        "start": hex(va),
        "end": hex(va + size),
        space: hex(target),
        "read": True,
        "write": "w" in flags,
        "exec": "x" in flags,
    }


def main() -> None:
    """Reads `nm` lines ("VALUE TYPE NAME"), prints the JSON."""
    value = {}
    for line in sys.stdin:
        number, _, name = line.split()
        value[name] = int(number, 16)
    json.dump(Truth(value).report(sys.argv[1:] == ["1"]), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
