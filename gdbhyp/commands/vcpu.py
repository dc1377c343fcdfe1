"""``hyp-vcpu``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import frame, vcpu
    from gdbhyp.hypervisors.guest import guest

    number, index = roots.vm_number(arguments.vcpu) if arguments.vcpu else (None, None)
    stop = context.stop()
    vm, chosen = vcpu.choose(stop, number, index)
    shown = frame.frame(guest(stop, vm, chosen).stop, context.disassemble) if arguments.frame else None
    return vcpu.vcpu_report(stop, vm, chosen, shown, verbose=arguments.verbose)


COMMAND = Command(
    name="vcpu",
    summary="Show a vCPU: its saved registers, those that a CPU holds now, its last exit, and what is pending.",
    run=_run,
    arguments=(
        Argument(("--frame",), "show the guest's code at its PC, and its callers, instead of all registers"),
        Argument(("-v", "--verbose"), "show also system registers that are zero, and what HCR_EL2 traps"),
        Argument(
            ("vcpu",),
            "VM and vCPU as hyp-vms numbers them; that of the CPU's own guest if not said",
            "text",
            metavar="VM[.VCPU]",
            optional=True,
        ),
    ),
    description="""
The registers are those that KVM saved when the guest last exited. Where a CPU holds newer ones, because it runs the
guest or (in VHE) has not put the vCPU yet, those that differ are shown beside them. The last exit is the last one that
was no interrupt. Code and callers are read through both stages of the guest's translation, from any stop; the callers
by frame records, which code without frame pointers does not keep. Of a protected VM, pKVM runs copies of the vCPUs that
are its own: what is shown then is the host's copy, and it says so. Under Xen the places of saved registers are read
off the functions that save them; Xen keeps neither why a vCPU exited nor, where gdbhyp could find it, what is pending.
""",
)
