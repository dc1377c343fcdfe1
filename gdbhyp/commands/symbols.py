"""``hyp-symbols``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands import roots
from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from gdbhyp.analyses.symbols import Symbols, SymbolsReport
    from gdbhyp.commands.declaration import SymbolFiles
    from gdbhyp.hypervisors.symbols import SymbolSet


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import symbols

    files = context.symbol_files()
    if arguments.remove:
        return _remove(files)
    if arguments.file and files is None:
        raise UsageError("--file is for GDB, which reads the file's debug information")
    found = _find(context, arguments)
    program = _program(files, found, arguments.file)
    chosen = symbols.choose(found, with_kernel=not arguments.no_kernel and program is None)
    report = found.report(chosen)
    if arguments.elf:
        return _written(report, symbols.contents(chosen), arguments.elf)
    return _given(files, found, report, chosen, program)


def _find(context: Context, arguments: Namespace) -> Symbols:
    from gdbhyp.analyses import symbols

    if arguments.vm is None:
        return symbols.find_symbols(context.stop())
    number, _ = roots.vm_number(arguments.vm)
    return symbols.guest_symbols(roots.vm_option(context, arguments).stop(), number)


def _remove(files: SymbolFiles | None) -> Any:
    from gdbhyp.analyses.symbols import RemovedSymbols

    if files is None:
        raise UsageError("--remove is for GDB: a symbol file on disk is yours to delete")
    return RemovedSymbols(files.take_back())


def _program(files: SymbolFiles | None, found: Symbols, path: str | None) -> tuple[str, int] | None:
    """Return the file with the kernel's debug information, and how far it has to be moved; None without one."""
    from gdbhyp.targets.program import read_program

    if files is None:
        return None
    if path is None:
        path = files.program(found.build_id) if found.build_id else None
        if path is None:
            return None
    if found.text is None:
        raise UsageError(f"--file is for a kernel's vmlinux, and {found.hypervisor} is no Linux")
    program = read_program(path)
    if program.build_id != found.build_id:
        raise UsageError(
            f"{path} is another kernel: its build ID is {program.build_id or 'missing'}, "
            f"the running one's is {found.build_id}"
        )
    return path, found.text - program.text


def _written(report: SymbolsReport, contents: bytes, path: str) -> SymbolsReport:
    from dataclasses import replace

    from gdbhyp.files import written_whole

    with written_whole(path) as file:
        file.write(contents)
    return replace(report, file=path)


def _given(
    files: SymbolFiles | None,
    found: Symbols,
    report: SymbolsReport,
    chosen: SymbolSet,
    program: tuple[str, int] | None,
) -> SymbolsReport:
    """Give the symbols to the debugger, if there is one."""
    from dataclasses import replace

    from gdbhyp.analyses import symbols

    if files is None:
        return report
    if program is not None:
        files.move(*program, main=found.vm is None)
        report = replace(report, program=program[0], program_offset=program[1])
        if found.kernel is None:
            return report
    name = report.hypervisor if report.vm is None else f"vm{report.vm}"
    return replace(report, file=files.give(name, symbols.contents(chosen), tuple(chosen.code())))


COMMAND = Command(
    name="symbols",
    summary="Give the hypervisor's code and data their names at the addresses where they run.",
    run=_run,
    arguments=(
        roots.VM,
        Argument(
            ("--file",),
            "a vmlinux with the running kernel's build ID: its debug information is used, moved to where it runs",
            "path",
        ),
        Argument(("--no-kernel",), "leave out the kernel's own symbols, and give those of EL2 alone"),
        Argument(("--elf",), "write the symbols to this ELF file, instead of giving them to GDB", "path"),
        Argument(("--remove",), "take away what this command gave to GDB"),
    ),
    description="""
The symbols come from the target's memory: those of a Linux kernel from its kallsyms, wherever KASLR put it, and
Xen's from its own table. In nVHE, hVHE and pKVM, KVM's hypervisor code is a part of the kernel's image that EL2
maps elsewhere: each page is looked up in EL2's table and in the kernel's, and its symbols stand where both lead to
the same physical page. Names begin with __kvm_nvhe_, per-CPU data ends with _cpuN, and the page that is mapped at
its physical address with _idmap. After that GDB's own commands know the names: info symbol $pc, x/i $pc, bt,
break __kvm_nvhe___kvm_vcpu_run. A vmlinux of the running kernel that GDB has loaded already is moved to where
it runs. With --vm, the symbols are those of a Linux kernel in that VM, read through both stages, and stand at its
own addresses, beside those of the host. Run it again when the machine has booted again. Of kernels without
CONFIG_KALLSYMS_ALL only functions and exported data have names.
""",
)
