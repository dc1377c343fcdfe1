"""Names of SMC and HVC calls."""

from __future__ import annotations

import pytest

from gdbhyp.arch.smccc import breakpoint_name, call_name, function_name


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        (0x8000_0000, "SMCCC_VERSION"),
        (0x8000_8000, "SMCCC_ARCH_WORKAROUND_1"),
        (0x8400_0000, "PSCI_VERSION"),
        (0xC400_0003, "PSCI_CPU_ON"),
        (0x8400_0003, "PSCI_CPU_ON"),
        (0x8400_0009, "PSCI_SYSTEM_RESET"),
        (0xC400_0020, "SDEI_VERSION"),
        (0x8400_0050, "TRNG_VERSION"),
        (0xC400_0053, "TRNG_RND"),
        (0x8400_0063, "FFA_VERSION"),
        (0xC400_006F, "FFA_MSG_SEND_DIRECT_REQ"),
        (0xC500_0020, "PV_TIME_FEATURES"),
        (0xC500_0021, "PV_TIME_ST"),
        (0x8600_0000, "ARM_SMCCC_KVM_FUNC_FEATURES"),
        (0x8600_0001, "ARM_SMCCC_KVM_FUNC_PTP"),
        (0xC600_0003, "ARM_SMCCC_KVM_FUNC_MEM_SHARE"),
        (0xC600_0020, "KVM vendor hypervisor call (pKVM range) 0x20"),
        (0xC600_0041, "ARM_SMCCC_KVM_FUNC_DISCOVER_IMPL_CPUS"),
        (0x8600_FF01, "Vendor-specific Hypervisor call UID"),
        (0xC400_0150, "RMI_VERSION"),
        (0xC400_0199, "RSI_HOST_CALL"),
        (0xC400_0156, "RMI call 0x156"),
        (0xC400_01CF, "RSI call 0x1cf"),
        (0x8200_0001, "SiP call 0x1"),
        (0xB000_0000, "Trusted Application call 0x0"),
        (0xB200_0004, "Trusted OS call 0x4"),
        (0x8A00_0000, "reserved owner 10 call 0x0"),
        (0x0200_0000, "Trusted OS yielding call"),
        (0x0000_0001, None),
        (0x1234_5678_C400_0003, "PSCI_CPU_ON"),
    ],
)
def test_function(identifier: int, name: str | None) -> None:
    assert function_name(identifier) == name


def test_calling_convention() -> None:
    assert call_name(0, 0x8400_0003) == "PSCI_CPU_ON"
    assert call_name(0, 0xC400_0003) == "PSCI_CPU_ON (SMC64)"


def test_not_smccc() -> None:
    assert call_name(1, 0x8400_0003) is None
    assert call_name(0, None) is None
    assert call_name(0, 5) is None


def test_xen() -> None:
    assert call_name(0xEA1, 0, 12) == "Xen hypercall memory_op"
    assert call_name(0xEA1, 0, 99) == "Xen hypercall"
    assert call_name(0xEA1, 0, None) == "Xen hypercall"
    assert call_name(0xEA1, 0, 12, hvc=False) is None


def test_host_of_kvm() -> None:
    assert call_name(0, 0xC600_0001, guest=False) == "KVM host call 1"
    assert call_name(0, 0, guest=False) == "HVC_SET_VECTORS (KVM stub call)"
    assert call_name(0, 0x8400_0000, guest=False) == "PSCI_VERSION"
    assert call_name(0, 0xC600_0001, guest=False, hvc=False) == "ARM_SMCCC_KVM_FUNC_PTP (SMC64)"


@pytest.mark.parametrize(
    ("immediate", "name"),
    [
        (0x800, "Linux BUG or WARN"),
        (0x004, "kprobe or uprobe"),
        (0x910, "KASAN report"),
        (0x5512, "UBSAN trap"),
        (0x8105, "kCFI failure, target in x5, type in w8"),
        (0x801, None),
        (0, None),
    ],
)
def test_breakpoint(immediate: int, name: str | None) -> None:
    assert breakpoint_name(immediate) == name
