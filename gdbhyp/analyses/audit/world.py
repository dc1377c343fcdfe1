"""A machine as the audit sees it: every tree by physical address, the registers, and whose memory is whose.

What counts as the hypervisor's own memory follows from what EL2 maps. A hypervisor or a VHE host that maps all memory
linearly (Xen, Linux) says nothing by that about who owns it: such a *direct map* is found as one distance between
input and output addresses under which more than half of the machine's largest piece of memory is mapped, and left out.
Where it is not known where the machine has memory, that is more than half of what the host and the VMs map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from gdbhyp.analyses.audit.findings import Evidence
from gdbhyp.analyses.find import rights_words
from gdbhyp.analyses.reach import Indexed, Reach
from gdbhyp.analyses.trees import Tree, root_of, world_of_el1
from gdbhyp.arch.regimes import Regime
from gdbhyp.arch.spaces import PA, Address, Word
from gdbhyp.engine.map import MappedRange
from gdbhyp.engine.ranges import Ranges, difference, intersection, total, union
from gdbhyp.engine.stop import Stop
from gdbhyp.engine.translate import translate
from gdbhyp.errors import RegisterUnavailable
from gdbhyp.hypervisors.vms import Vm

Wanted = Callable[[MappedRange], bool]


def is_memory(kind: MappedRange) -> bool:
    """Whether a kind of range maps Normal memory, by tables, with any right to it."""
    return bool(kind.page_size) and reachable(kind) and not is_device(kind)


def is_device(kind: MappedRange) -> bool:
    """Whether a kind of range is some type of Device memory by itself."""
    return kind.memory.startswith("Device")


def reachable(kind: MappedRange) -> bool:
    """Whether anybody may do anything with it."""
    return kind.read or writable(kind) or executable(kind) or bool(kind.el0_read)


def writable(kind: MappedRange) -> bool:
    """Whether anybody may write to it."""
    return kind.write or bool(kind.el0_write)


def executable(kind: MappedRange) -> bool:
    """Whether anybody may execute it."""
    return kind.execute or bool(kind.el0_execute)


@dataclass(frozen=True)
class World:
    """One machine at one moment."""

    stop: Stop
    reach: Reach

    @cached_property
    def cpus(self) -> tuple[Stop, ...]:
        return self.stop.cpus()

    @cached_property
    def ram(self) -> Ranges:
        """Where the machine has memory; empty where that is not known.

        A core may hold a part of memory: then what EL2 executes is not all in it.
        """
        known = union(self.stop.ram())
        executed = union(
            r for e in self.el2 for r in e.map.covered(lambda kind: is_memory(kind) and kind.execute)
        )
        return [] if difference(executed, known) else known

    def in_memory(self, ranges: Ranges) -> Ranges:
        """Return the part that is memory, all of it where that is not known."""
        return intersection(ranges, self.ram) if self.ram else ranges

    @property
    def hypervisor(self) -> str:
        return self.reach.trees.hypervisor.name

    # Trees by what they are.

    @cached_property
    def el2(self) -> tuple[Indexed, ...]:
        """What EL2 itself runs by: its stage 1, for a VHE host the kernel's range."""
        return tuple(each for each in self.reach.indexed if is_el2(each.tree) and not is_process(each.tree))

    @cached_property
    def host(self) -> tuple[Indexed, ...]:
        """Stage 1 of a host at EL1, and of the processes of a VHE host."""
        return tuple(
            each
            for each in self.reach.indexed
            if each.tree.who == "host" and each.tree.stages != "2" and each not in self.el2
        )

    @cached_property
    def host_stage2(self) -> tuple[Indexed, ...]:
        """The stage 2 that a host is behind (pKVM)."""
        return tuple(e for e in self.reach.indexed if e.tree.who == "host" and e.tree.stages == "2")

    @cached_property
    def vms(self) -> tuple[Indexed, ...]:
        """Stage 2 of each VM."""
        return tuple(each for each in self.reach.indexed if each.tree.who == "vm")

    @cached_property
    def audited(self) -> tuple[Indexed, ...]:
        """What the hypervisor and the host answer for: all trees but guests' own."""
        return tuple(e for e in self.reach.indexed if e.tree.who != "vm" or e.tree.stages == "2")

    # Whose memory is whose.

    @cached_property
    def direct_maps(self) -> dict[tuple[object, ...], dict[int, Ranges]]:
        """The direct maps of EL2, by the tree's key and the distance of input and output."""
        if self.ram:
            enough = max(end - start for start, end in self.ram) // 2
            others = self.ram
        else:
            below = (*self.host, *self.host_stage2, *self.vms)
            others = union(r for each in below for r in each.map.covered(is_memory))
            enough = total(others) // 2
        found = {}
        for each in self.el2:
            by_distance = each.map.offsets(is_memory)
            large = {
                distance: ranges
                for distance, ranges in by_distance.items()
                if total(intersection(ranges, others)) > enough
            }
            found[each.tree.key] = large
        return found

    @cached_property
    def text(self) -> Ranges:
        """Memory that EL2 may execute and not write there."""
        parts = [each.map.covered(lambda k: is_memory(k) and k.execute and not k.write) for each in self.el2]
        return self.in_memory(union(r for part in parts for r in part))

    @cached_property
    def mapped_by_el2(self) -> Ranges:
        """Memory that EL2 maps other than by a direct map, and its text."""
        parts: list[Ranges] = [self.text]
        for each in self.el2:
            large = self.direct_maps[each.tree.key]
            parts += [
                ranges for distance, ranges in each.map.offsets(is_memory).items() if distance not in large
            ]
        return self.in_memory(union(r for part in parts for r in part))

    @cached_property
    def el2_tables(self) -> Ranges:
        """The translation tables that EL2 runs by."""
        return tables_of(self.el2)

    @cached_property
    def own(self) -> Ranges:
        """The hypervisor's own memory, its tables among it."""
        return union([*self.mapped_by_el2, *self.el2_tables])

    def owns(self) -> str:
        """Return in words what counts as the hypervisor's own memory."""
        words = "what EL2 maps as memory"
        if any(self.direct_maps.values()):
            words = "EL2's text, what it maps outside its direct map of all memory"
        return words + ", and EL2's translation tables"

    # Evidence.

    def evidence(self, tree: Tree, found: MappedRange) -> Evidence:
        """Return the descriptor that maps the beginning of a range, read anew."""
        at = f"{found.input_space} {found.start:#x}"
        text = f"{tree.label}: {at} is PA {found.output:#x}, {rights_words(found)}, {found.memory}"
        steps = translate(tree.machine, found.start, tree.regime, stages=tree.stages).steps
        last = steps[-1] if steps else None
        return Evidence(
            text,
            tree=tree.label,
            input=found.start,
            input_space=found.input_space,
            pa=PA(found.output),
            descriptor_address=None if last is None else last.descriptor_address,
            descriptor_space=None if last is None else last.table_space,
            descriptor=None if last is None else last.descriptor,
        )

    def evidence_at(
        self, trees: Sequence[Indexed], pa: int, wanted: Wanted = reachable, *, each: int = 1
    ) -> list[Evidence]:
        """Return how trees map the page at ``pa``, ``each`` mappings a tree at most."""
        found = []
        for one in trees:
            hits = [hit for hit in one.map.find(pa, pa + 1) if wanted(hit)]
            found += [self.evidence(one.tree, hit) for hit in hits[:each]]
        return found

    # Registers.

    def not_shown(self, *names: str) -> list[tuple[str, Stop]]:
        """Return which CPUs do not show which of some registers."""
        return [(name, cpu) for name in names for cpu in self.cpus if cpu.optional(name) is None]

    def guests(self) -> Iterator[tuple[Stop, int]]:
        """Yield the CPUs that run a guest, or have just left it, with VTTBR_EL2."""
        for cpu in self.cpus:
            if cpu.optional("HCR_EL2") is None or cpu.optional("VTTBR_EL2") is None:
                continue
            world, between = world_of_el1(cpu)
            if world == "guest" and not between:
                yield cpu, cpu.register("VTTBR_EL2")

    def vm(self, number: int) -> Vm:
        """Return a VM by its number."""
        return next(vm for vm in self.reach.trees.search.vms if vm.vm == number)

    def vm_of(self, vttbr: int) -> int | None:
        """Return the VM that a VTTBR_EL2 is of."""
        return next(
            (vm.vm for vm in self.reach.trees.search.vms if root_of(vm.vttbr) == root_of(vttbr)), None
        )


def is_el2(tree: Tree) -> bool:
    """Whether a tree is of a regime of EL2."""
    return tree.regime in (Regime.EL2, Regime.EL20)


def is_process(tree: Tree) -> bool:
    """Whether a tree is a VHE host's lower range, which belongs to a process."""
    return tree.who == "host" and tree.regime is Regime.EL20 and tree.upper is False


def tables_of(trees: Sequence[Indexed]) -> Ranges:
    """Return where the tables of trees are in physical memory."""
    return union(piece for each in trees for piece in each.tables)


def say_unknown(missing: Iterable[tuple[str, Stop]]) -> None:
    """End a rule that could not be judged for want of registers of some CPUs; return if there are none.

    :raises RegisterUnavailable: naming them all.
    """
    cpus: dict[str, list[int]] = {}
    for name, cpu in missing:
        cpus.setdefault(name, []).append(cpu.cpu)
    if cpus:
        words = [
            f"{name} of CPU {', '.join(map(str, sorted(set(numbers))))}" for name, numbers in cpus.items()
        ]
        raise RegisterUnavailable(" and ".join(words))


def register_evidence(cpu: Stop, name: str, text: str = "") -> Evidence:
    """Return a register of a CPU as evidence; ``text`` says what about it."""
    value = cpu.register(name)
    words = f"CPU {cpu.cpu}: {name} = {value:#x}" + (f", {text}" if text else "")
    return Evidence(words, register=name, value=Word(value), cpu=cpu.cpu)


def descriptor_evidence(
    tree: Tree, text: str, start: int, address: int | None, descriptor: int | None, space: str
) -> Evidence:
    """Return a descriptor as evidence."""
    return Evidence(
        f"{tree.label}: {text}",
        tree=tree.label,
        input=Address(start),
        input_space="IPA" if tree.stages == "2" else "VA",
        descriptor_address=None if address is None else Address(address),
        descriptor_space=None if address is None else space,
        descriptor=None if descriptor is None else Word(descriptor),
    )
