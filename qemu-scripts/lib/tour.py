"""The tour of the demo hypervisor, run inside GDB by ./qemu-scripts/demo.

Every answer that has a truth is compared with truth.json, which the demo's build writes without gdbhyp.
"""

import json
import os
import typing

import gdb

WORK = os.environ["GDBHYP_DEMO"]
wrong: "list[str]" = []


def tell(text: str) -> None:
    """Print what the next commands are about."""
    gdb.write(f"\n--- {text}\n")


def show(command: str) -> None:
    """Run a command as a person would, printing both."""
    gdb.write(f"(gdb) {command}\n")
    try:
        gdb.execute(command)
    except gdb.error as error:
        gdb.write(f"{error}\n")
        wrong.append(f"'{command}' failed: {error}")


def answer(command: str) -> "dict[str, typing.Any]":
    """Return the JSON answer of a command."""
    found: dict[str, typing.Any] = json.loads(gdb.execute(f"{command} --json", to_string=True))
    return found


def expect(what: str, found: object, truth: object) -> None:
    """Note an answer that is not the truth."""
    if found != truth:
        wrong.append(f"{what} is {found}, and should be {truth}")


def run_to(site: "dict[str, str]") -> None:
    """Continue to the EL2 vector for one of the traps of a VM's guest."""
    condition = (
        f"$ELR_EL2 == {site['elr']} && $ESR_EL2 == {site['esr']} && $VTTBR_EL2 >> 48 == {site['vmid']}"
    )
    gdb.execute(f"tbreak el1_sync if {condition}", to_string=True)
    gdb.execute("continue", to_string=True)


def tour() -> None:
    with open(os.path.join(WORK, "truth.json"), encoding="utf-8") as file:
        truth = json.load(file)
    vm = truth["vms"][0]
    sites = {site["symbol"]: site for site in vm["sites"]}
    attach()
    the_host(vm)
    the_easy_fault(sites["guest_mmio_store"])
    the_hard_fault(sites["guest_perm_store"])
    the_walk_fault(sites["guest_s1ptw_load"])
    the_calls(sites)
    the_tables(vm)
    the_registers()
    every_fault(sites)
    the_world_switches()


def attach() -> None:
    gdb.execute(f"file {WORK}/demo.elf", to_string=True)
    gdb.execute(f"add-symbol-file {WORK}/guest.elf", to_string=True)
    tell("QEMU waits at the first instruction of a bare-metal hypervisor with two guests. Attach.")
    show(f"target remote {WORK}/gdb.sock")


def the_host(vm: "dict[str, str]") -> None:
    tell("The host asks for a vCPU to be run: an HVC, with VTTBR_EL2 still zero.")
    gdb.execute("tbreak el1_host_call", to_string=True)
    gdb.execute("continue", to_string=True)
    show("hyp-status")
    expect("the VMID at a host call", answer("hyp-status")["vmid"], None)


def the_easy_fault(site: "dict[str, str]") -> None:
    tell("The guest writes to a device that stage 2 does not map. Why are we in EL2?")
    run_to(site)
    show("hyp-status")
    show("hyp-esr")
    show("hyp-ipa")
    expect("the IPA of the MMIO store", answer("hyp-ipa")["ipa"], site["ipa"])


def the_hard_fault(site: "dict[str, str]") -> None:
    tell("A write to a read-only page: for a permission fault HPFAR_EL2 is UNKNOWN, so stage 1 is walked.")
    run_to(site)
    show("hyp-ipa")
    found = answer("hyp-ipa")
    expect("the IPA of the permission fault", found["ipa"], site["ipa"])
    expect("the way to the IPA of the permission fault", found["method"], "stage1_walk")
    show("hyp-at S12E1W $FAR_EL2")


def the_walk_fault(site: "dict[str, str]") -> None:
    tell("Stage 2 does not map a table of the guest's own stage 1 (S1PTW).")
    run_to(site)
    show("hyp-ipa")
    expect("the IPA of the S1PTW fault", answer("hyp-ipa")["ipa"], site["ipa"])


def the_calls(sites: "dict[str, dict[str, str]]") -> None:
    tell("A hypercall, an SMC and a trapped system register, by name.")
    for symbol in ("guest_hvc", "guest_smc", "guest_mrs"):
        run_to(sites[symbol])
        show("hyp-esr")


def the_tables(vm: "dict[str, list[dict[str, typing.Any]]]") -> None:
    tell("Where does the guest's code lie? Both stages, then all that stage 2 maps.")
    show("hyp-walk $ELR_EL2 --regime EL1")
    show("hyp-map --stage2")
    for entry in vm["map"]:
        if entry["fault"] is None:
            found = answer(f"hyp-walk --stage2 {entry['start']}")
            expect(f"the PA of IPA {entry['start']}", found["output"], entry["pa"])
    tell("And what the hypervisor itself can reach.")
    show("hyp-map")


def the_registers() -> None:
    tell("Registers by field.")
    show("hyp-reg VTCR_EL2")
    show("hyp-reg HCR_EL2")


def every_fault(sites: "dict[str, dict[str, str]]") -> None:
    """Compare hyp-ipa with the truth at every fault that has an IPA."""
    tell("Every kind of stage-2 fault that the guest can take, and the IPA that gdbhyp finds.")
    for symbol, site in sites.items():
        if site["ipa_method"] is None:
            continue
        run_to(site)
        found = answer("hyp-ipa")
        gdb.write(f"{symbol:24} IPA {found['ipa']:14} {found['method']:12} {found['syndrome']}\n")
        expect(f"the IPA of {symbol}", found["ipa"], site["ipa"])
        expect(f"the way to the IPA of {symbol}", found["method"], site["ipa_method"])


def the_world_switches() -> None:
    tell("World switches, recorded for a hundred exits.")
    show("hyp-trace start --source break")
    gdb.execute("tbreak el1_sync", to_string=True)
    gdb.execute("ignore $bpnum 100", to_string=True)
    gdb.execute("continue", to_string=True)
    show("hyp-trace stop")
    show("hyp-trace show")
    show("hyp-trace stat")


def finish() -> None:
    if wrong:
        gdb.write("\nNot as expected:\n" + "".join(f"  {each}\n" for each in wrong))
    else:
        gdb.write("\nEverything was as expected.\n")


try:
    tour()
except Exception as error:
    wrong.append(f"the tour ended early: {error}")
finish()
if os.environ["GDBHYP_DEMO_MODE"] != "interactive":
    gdb.execute(f"quit {1 if wrong else 0}")
