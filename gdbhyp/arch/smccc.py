"""Names of SMC and HVC calls: function identifiers of the SMC Calling Convention, and hypervisors' own numbers.

Sources: Arm DEN0022 (PSCI), DEN0028 (SMCCC), DEN0054 (SDEI), DEN0057 (paravirtualized time), DEN0070
(workarounds), DEN0077 and DEN0140 (FF-A), DEN0098 (TRNG), DEN0100 (errata management), DEN0137 (RMM); for the
vendor-specific hypervisor services of KVM the kernel's documentation, Documentation/virt/kvm/arm; for Xen the
list of hypercalls in its public header, xen/include/public/xen.h (MIT licence).
"""

from __future__ import annotations

from collections.abc import Callable

OWNERS = (
    "Arm Architecture",
    "CPU",
    "SiP",
    "OEM",
    "Standard Secure",
    "Standard Hypervisor",
    "Vendor-specific Hypervisor",
)
"""The owner by bits [29:24] of a function identifier, 0 to 6."""

_FAST, _SMC64 = 1 << 31, 1 << 30

# Keyed by owner << 16 | function number; the calling convention (SMC32 or SMC64) is a bit beside it.
_FUNCTIONS: dict[int, str] = {
    0x0_0000: "SMCCC_VERSION",
    0x0_0001: "SMCCC_ARCH_FEATURES",
    0x0_0002: "SMCCC_ARCH_SOC_ID",
    0x0_0003: "SMCCC_ARCH_FEATURE_AVAILABILITY",
    0x0_0004: "SMCCC_ARCH_WORKAROUND_4",
    0x0_3FFF: "SMCCC_ARCH_WORKAROUND_3",
    0x0_7FFF: "SMCCC_ARCH_WORKAROUND_2",
    0x0_8000: "SMCCC_ARCH_WORKAROUND_1",
    0x4_0000: "PSCI_VERSION",
    0x4_0001: "PSCI_CPU_SUSPEND",
    0x4_0002: "PSCI_CPU_OFF",
    0x4_0003: "PSCI_CPU_ON",
    0x4_0004: "PSCI_AFFINITY_INFO",
    0x4_0005: "PSCI_MIGRATE",
    0x4_0006: "PSCI_MIGRATE_INFO_TYPE",
    0x4_0007: "PSCI_MIGRATE_INFO_UP_CPU",
    0x4_0008: "PSCI_SYSTEM_OFF",
    0x4_0009: "PSCI_SYSTEM_RESET",
    0x4_000A: "PSCI_FEATURES",
    0x4_000B: "PSCI_CPU_FREEZE",
    0x4_000C: "PSCI_CPU_DEFAULT_SUSPEND",
    0x4_000D: "PSCI_NODE_HW_STATE",
    0x4_000E: "PSCI_SYSTEM_SUSPEND",
    0x4_000F: "PSCI_SET_SUSPEND_MODE",
    0x4_0010: "PSCI_STAT_RESIDENCY",
    0x4_0011: "PSCI_STAT_COUNT",
    0x4_0012: "PSCI_SYSTEM_RESET2",
    0x4_0013: "PSCI_MEM_PROTECT",
    0x4_0014: "PSCI_MEM_PROTECT_CHECK_RANGE",
    0x4_0015: "PSCI_SYSTEM_OFF2",
    0x4_0016: "PSCI_CLEAN_INV_MEMREGION",
    0x4_0017: "PSCI_CLEAN_INV_MEMREGION_ATTRIBUTES",
    0x4_0020: "SDEI_VERSION",
    0x4_0021: "SDEI_EVENT_REGISTER",
    0x4_0022: "SDEI_EVENT_ENABLE",
    0x4_0023: "SDEI_EVENT_DISABLE",
    0x4_0024: "SDEI_EVENT_CONTEXT",
    0x4_0025: "SDEI_EVENT_COMPLETE",
    0x4_0026: "SDEI_EVENT_COMPLETE_AND_RESUME",
    0x4_0027: "SDEI_EVENT_UNREGISTER",
    0x4_0028: "SDEI_EVENT_STATUS",
    0x4_0029: "SDEI_EVENT_GET_INFO",
    0x4_002A: "SDEI_EVENT_ROUTING_SET",
    0x4_002B: "SDEI_PE_MASK",
    0x4_002C: "SDEI_PE_UNMASK",
    0x4_002D: "SDEI_INTERRUPT_BIND",
    0x4_002E: "SDEI_INTERRUPT_RELEASE",
    0x4_002F: "SDEI_EVENT_SIGNAL",
    0x4_0030: "SDEI_FEATURES",
    0x4_0031: "SDEI_PRIVATE_RESET",
    0x4_0032: "SDEI_SHARED_RESET",
    0x4_0050: "TRNG_VERSION",
    0x4_0051: "TRNG_FEATURES",
    0x4_0052: "TRNG_GET_UUID",
    0x4_0053: "TRNG_RND",
    0x4_0060: "FFA_ERROR",
    0x4_0061: "FFA_SUCCESS",
    0x4_0062: "FFA_INTERRUPT",
    0x4_0063: "FFA_VERSION",
    0x4_0064: "FFA_FEATURES",
    0x4_0065: "FFA_RX_RELEASE",
    0x4_0066: "FFA_RXTX_MAP",
    0x4_0067: "FFA_RXTX_UNMAP",
    0x4_0068: "FFA_PARTITION_INFO_GET",
    0x4_0069: "FFA_ID_GET",
    0x4_006A: "FFA_MSG_POLL",
    0x4_006B: "FFA_MSG_WAIT",
    0x4_006C: "FFA_YIELD",
    0x4_006D: "FFA_RUN",
    0x4_006E: "FFA_MSG_SEND",
    0x4_006F: "FFA_MSG_SEND_DIRECT_REQ",
    0x4_0070: "FFA_MSG_SEND_DIRECT_RESP",
    0x4_0071: "FFA_MEM_DONATE",
    0x4_0072: "FFA_MEM_LEND",
    0x4_0073: "FFA_MEM_SHARE",
    0x4_0074: "FFA_MEM_RETRIEVE_REQ",
    0x4_0075: "FFA_MEM_RETRIEVE_RESP",
    0x4_0076: "FFA_MEM_RELINQUISH",
    0x4_0077: "FFA_MEM_RECLAIM",
    0x4_0078: "FFA_MEM_OP_PAUSE",
    0x4_0079: "FFA_MEM_OP_RESUME",
    0x4_007A: "FFA_MEM_FRAG_RX",
    0x4_007B: "FFA_MEM_FRAG_TX",
    0x4_007C: "FFA_NORMAL_WORLD_RESUME",
    0x4_007D: "FFA_NOTIFICATION_BITMAP_CREATE",
    0x4_007E: "FFA_NOTIFICATION_BITMAP_DESTROY",
    0x4_007F: "FFA_NOTIFICATION_BIND",
    0x4_0080: "FFA_NOTIFICATION_UNBIND",
    0x4_0081: "FFA_NOTIFICATION_SET",
    0x4_0082: "FFA_NOTIFICATION_GET",
    0x4_0083: "FFA_NOTIFICATION_INFO_GET",
    0x4_0084: "FFA_RX_ACQUIRE",
    0x4_0085: "FFA_SPM_ID_GET",
    0x4_0086: "FFA_MSG_SEND2",
    0x4_0087: "FFA_SECONDARY_EP_REGISTER",
    0x4_0088: "FFA_MEM_PERM_GET",
    0x4_0089: "FFA_MEM_PERM_SET",
    0x4_008A: "FFA_CONSOLE_LOG",
    0x4_008B: "FFA_PARTITION_INFO_GET_REGS",
    0x4_008C: "FFA_EL3_INTR_HANDLE",
    0x4_008D: "FFA_MSG_SEND_DIRECT_REQ2",
    0x4_008E: "FFA_MSG_SEND_DIRECT_RESP2",
    0x4_00F0: "ARM_EM_VERSION",
    0x4_00F1: "ARM_EM_FEATURES",
    0x4_00F2: "ARM_EM_CPU_ERRATUM_FEATURES",
    0x4_0150: "RMI_VERSION",
    0x4_0151: "RMI_GRANULE_DELEGATE",
    0x4_0152: "RMI_GRANULE_UNDELEGATE",
    0x4_0153: "RMI_DATA_CREATE",
    0x4_0154: "RMI_DATA_CREATE_UNKNOWN",
    0x4_0155: "RMI_DATA_DESTROY",
    0x4_0157: "RMI_REALM_ACTIVATE",
    0x4_0158: "RMI_REALM_CREATE",
    0x4_0159: "RMI_REALM_DESTROY",
    0x4_015A: "RMI_REC_CREATE",
    0x4_015B: "RMI_REC_DESTROY",
    0x4_015C: "RMI_REC_ENTER",
    0x4_015D: "RMI_RTT_CREATE",
    0x4_015E: "RMI_RTT_DESTROY",
    0x4_015F: "RMI_RTT_MAP_UNPROTECTED",
    0x4_0161: "RMI_RTT_READ_ENTRY",
    0x4_0162: "RMI_RTT_UNMAP_UNPROTECTED",
    0x4_0164: "RMI_PSCI_COMPLETE",
    0x4_0165: "RMI_FEATURES",
    0x4_0166: "RMI_RTT_FOLD",
    0x4_0167: "RMI_REC_AUX_COUNT",
    0x4_0168: "RMI_RTT_INIT_RIPAS",
    0x4_0169: "RMI_RTT_SET_RIPAS",
    0x4_0190: "RSI_VERSION",
    0x4_0191: "RSI_FEATURES",
    0x4_0192: "RSI_MEASUREMENT_READ",
    0x4_0193: "RSI_MEASUREMENT_EXTEND",
    0x4_0194: "RSI_ATTESTATION_TOKEN_INIT",
    0x4_0195: "RSI_ATTESTATION_TOKEN_CONTINUE",
    0x4_0196: "RSI_REALM_CONFIG",
    0x4_0197: "RSI_IPA_STATE_SET",
    0x4_0198: "RSI_IPA_STATE_GET",
    0x4_0199: "RSI_HOST_CALL",
    0x5_0020: "PV_TIME_FEATURES",
    0x5_0021: "PV_TIME_ST",
    0x6_0000: "ARM_SMCCC_KVM_FUNC_FEATURES",
    0x6_0001: "ARM_SMCCC_KVM_FUNC_PTP",
    0x6_0002: "ARM_SMCCC_KVM_FUNC_HYP_MEMINFO",
    0x6_0003: "ARM_SMCCC_KVM_FUNC_MEM_SHARE",
    0x6_0004: "ARM_SMCCC_KVM_FUNC_MEM_UNSHARE",
    0x6_0007: "ARM_SMCCC_KVM_FUNC_MMIO_GUARD",
    0x6_0040: "ARM_SMCCC_KVM_FUNC_DISCOVER_IMPL_VER",
    0x6_0041: "ARM_SMCCC_KVM_FUNC_DISCOVER_IMPL_CPUS",
}

# Blocks of numbers of which only the owner's document knows the single calls: owner, first, last, name.
_BLOCKS = (
    (4, 0x0150, 0x018F, "RMI call"),
    (4, 0x0190, 0x01CF, "RSI call"),
    (6, 0x0000, 0x003F, "KVM vendor hypervisor call (pKVM range)"),
)

_GENERAL = {0xFF00: "call count", 0xFF01: "call UID", 0xFF03: "revision"}

_XEN_HYPERCALLS = {
    7: "platform_op",
    12: "memory_op",
    13: "multicall",
    17: "xen_version",
    18: "console_io",
    20: "grant_table_op",
    21: "vm_assist",
    24: "vcpu_op",
    27: "xsm_op",
    29: "sched_op",
    32: "event_channel_op",
    33: "physdev_op",
    34: "hvm_op",
    35: "sysctl",
    36: "domctl",
    39: "argo_op",
    41: "dm_op",
    42: "hypfs_op",
}

XEN_IMMEDIATE = 0xEA1
"""The immediate of the HVC that is a Xen hypercall; its number is in x16 (r12 for AArch32)."""


# KVM's host calls its own EL2 code with fast SMC64 numbers of this range; each version has its own.
_HOST_CALL = 0xC600_0000

_STUB_CALLS = (
    "HVC_SET_VECTORS",
    "HVC_SOFT_RESTART",
    "HVC_RESET_VECTORS",
    "HVC_FINALISE_EL2",
    "HVC_GET_ICH_VTR_EL2",
)

_BREAKPOINTS = (
    (0x004, 0x007, "kprobe or uprobe"),
    (0x100, 0x100, "Linux fault"),
    (0x400, 0x401, "kgdb"),
    (0x800, 0x800, "Linux BUG or WARN"),
    (0x900, 0x9FF, "KASAN report"),
    (0x5500, 0x55FF, "UBSAN trap"),
)


def breakpoint_name(immediate: int) -> str | None:
    """Return what software uses this BRK immediate for, None where no convention is known."""
    if 0x8000 <= immediate <= 0x83FF:
        return f"kCFI failure, target in x{immediate & 31}, type in w{immediate >> 5 & 31}"
    return next((name for first, last, name in _BREAKPOINTS if first <= immediate <= last), None)


def function_name(identifier: int) -> str | None:
    """Return what an SMCCC function identifier (the low 32 bits of x0) names, None when it is no identifier.

    A number that is not known is described by its owner: ``"Vendor-specific Hypervisor call 0x123"``.
    """
    identifier &= 0xFFFF_FFFF
    if not identifier & _FAST:
        return "Trusted OS yielding call" if 0x0200_0000 <= identifier < 0x2000_0000 else None
    owner, number = identifier >> 24 & 0x3F, identifier & 0xFFFF
    name = _FUNCTIONS.get(owner << 16 | number)
    if name is not None:
        return name
    for block_owner, first, last, block in _BLOCKS:
        if owner == block_owner and first <= number <= last:
            return f"{block} {number:#x}"
    if number in _GENERAL:
        return f"{_owner_name(owner)} {_GENERAL[number]}"
    return f"{_owner_name(owner)} call {number:#x}"


def _owner_name(owner: int) -> str:
    if owner < len(OWNERS):
        return OWNERS[owner]
    if owner in (48, 49):
        return "Trusted Application"
    return "Trusted OS" if owner >= 50 else f"reserved owner {owner}"


def xen_hypercall(number: int) -> str | None:
    """Return the name of a Xen hypercall number (x16), None when it is not one that an Arm guest has."""
    return _XEN_HYPERCALLS.get(number)


HostCall = Callable[[int], "str | None"]
"""Names what a host asks of its own EL2 code by x0, None where that is not known."""


def call_name(
    immediate: int,
    x0: int | None,
    x16: int | None = None,
    *,
    hvc: bool = True,
    guest: bool | None = None,
    host_call: HostCall | None = None,
) -> str | None:
    """Return what an HVC or SMC with these registers asks for, None when that cannot be known.

    ``"PSCI_CPU_ON (SMC64)"``, ``"Xen hypercall console_io"``. ``guest`` False says that KVM's host called:
    its hypercalls share numbers with the services that KVM offers to guests, and ``host_call`` names them.
    """
    if hvc and immediate == XEN_IMMEDIATE:
        name = None if x16 is None else xen_hypercall(x16 & 0xFFFF_FFFF)
        return f"Xen hypercall {name}" if name else "Xen hypercall"
    if immediate or x0 is None:
        return None
    if hvc and guest is False:
        host = _host_call(x0, host_call)
        if host is not None:
            return host
    name = function_name(x0)
    return f"{name} (SMC64)" if name is not None and x0 & _FAST and x0 & _SMC64 else name


def _host_call(x0: int, named: HostCall | None) -> str | None:
    if x0 < len(_STUB_CALLS):
        return f"{_STUB_CALLS[x0]} (KVM stub call)"
    if x0 & 0xFFFF_FF00 == _HOST_CALL:
        name = named(x0) if named else None
        return f"{name} (KVM host call {x0 & 0xFF})" if name else f"KVM host call {x0 & 0xFF}"
    if x0 >> 32:
        # The first KVM for arm64 passed the address of the function that EL2 shall call.
        name = named(x0) if named else None
        return f"{name} (EL2 function)" if name else None
    return None
