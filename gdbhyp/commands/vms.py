"""``hyp-vms``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import vms

    return vms.vms(context.stop(), verbose=arguments.verbose)


COMMAND = Command(
    name="vms",
    summary="List every VM of the machine: its VMID, stage-2 root, memory, and where each of its vCPUs is.",
    run=_run,
    arguments=(Argument(("-v", "--verbose"), "also say where the hypervisor's own objects are"),),
    description="""
A VM that a CPU has loaded is in VTTBR_EL2. All the others are found in the hypervisor's memory: a Linux kernel carries
its own symbols (kallsyms) and types (BTF), which lead to KVM's list of VMs or to the processes that have one open; no
vmlinux is needed. Where GDB has loaded one all the same, with debug information and the running kernel's build ID, its
types are used, and a kernel that was built without BTF needs that. The first look at a kernel reads several MiB of
it, and is kept by its build ID below ~/.cache/gdbhyp. A vCPU's PC is live while a CPU runs it, and else that of its
last exit. The numbers of VMs are what --vm of other commands takes.
""",
)
