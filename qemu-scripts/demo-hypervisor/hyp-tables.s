// The hypervisor's translation tables: its own stage 1, and a stage 2 for each VM.
//
// All of it is constant data, in read-only memory: nothing here is built or changed at run time. Read a
// table as a list of "at this address, at this level, there is that".

        .include "layout.inc"
        .include "descriptors.inc"

        .section .hyp.rodata, "a"

// ---- EL2 stage 1 ---------------------------------------------------------------------------------
begin_table hyp_l0
        at_address hyp_l0, BOOT_PA, 0
        .quad hyp_l1_identity - HYP_VA_TO_PA + DESC_TABLE
        at_address hyp_l0, HYP_VA, 0
        .quad hyp_l1 - HYP_VA_TO_PA + DESC_TABLE
end_table hyp_l0

// The identity map is only for the few instructions around "MMU on", so it is read-only and executable.
begin_table hyp_l1_identity
        at_address hyp_l1_identity, BOOT_PA, 1
        .quad hyp_l2_identity - HYP_VA_TO_PA + DESC_TABLE
end_table hyp_l1_identity

begin_table hyp_l2_identity
        at_address hyp_l2_identity, BOOT_PA, 2
        .quad BOOT_BLOCK_PA + S1_EL2_RX + DESC_BLOCK
end_table hyp_l2_identity

begin_table hyp_l1
        at_address hyp_l1, HYP_VA, 1
        .quad hyp_l2 - HYP_VA_TO_PA + DESC_TABLE
end_table hyp_l1

begin_table hyp_l2
        at_address hyp_l2, HYP_VA, 2
        .quad hyp_l3 - HYP_VA_TO_PA + DESC_TABLE
        at_address hyp_l2, HYP_UART_VA, 2
        .quad UART_PA + S1_EL2_DEVICE + DESC_BLOCK
end_table hyp_l2

// No page of the hypervisor is both writable and executable.
begin_table hyp_l3
        at_address hyp_l3, HYP_VA + HYP_TEXT, 3
        pages HYP_TEXT_PAGES, HYP_PA + HYP_TEXT, S1_EL2_RX
        at_address hyp_l3, HYP_VA + HYP_RODATA, 3
        pages HYP_RODATA_PAGES, HYP_PA + HYP_RODATA, S1_EL2_R
        at_address hyp_l3, HYP_VA + HYP_DATA, 3
        pages HYP_DATA_PAGES, HYP_PA + HYP_DATA, S1_EL2_RW
        at_address hyp_l3, HYP_VA + HYP_SHARED, 3
        pages HYP_SHARED_PAGES, HYP_PA + HYP_SHARED, S1_EL2_RW
end_table hyp_l3

// ---- stage 2 -------------------------------------------------------------------------------------
// IPAs have 40 bits, and one level-1 table of the 4 KiB granule resolves 39. Rather than start at a level-0
// table with two entries, the architecture lets the root be up to 16 tables side by side: here two level-1
// tables, 1024 entries, aligned to their common size of 8 KiB. IPA_HIGH_BLOCK is in the second of them.
.macro vm_tables vm:req, ram:req, pages:req, ro_block:req, heap:req, high:req, rom
        .balign 8192
        .globl vm_\vm\()_root
        .type vm_\vm\()_root, %object
vm_\vm\()_root:
        .ifnb \rom
        .quad vm_\vm\()_l2_rom - HYP_VA_TO_PA + DESC_TABLE
        .endif
        at_index vm_\vm\()_root, IPA_UART >> 30
        .quad vm_\vm\()_l2_device - HYP_VA_TO_PA + DESC_TABLE
        at_index vm_\vm\()_root, IPA_RAM >> 30
        .quad vm_\vm\()_l2_ram - HYP_VA_TO_PA + DESC_TABLE
        at_index vm_\vm\()_root, IPA_HIGH_BLOCK >> 30
        .quad vm_\vm\()_l2_high - HYP_VA_TO_PA + DESC_TABLE
        .org vm_\vm\()_root + 8192
        .size vm_\vm\()_root, 8192

// A ROM at IPA 0 gives this VM a level-2 table for the first GiB, so a fault on IPA_MMIO is one at level 2.
// In a VM without, the same fault is one at level 1.
        .ifnb \rom
begin_table vm_\vm\()_l2_rom
        .quad (\rom) + S2_NORMAL + S2_R + DESC_BLOCK
end_table vm_\vm\()_l2_rom
        .endif

begin_table vm_\vm\()_l2_device
        at_address vm_\vm\()_l2_device, IPA_UART, 2
        .quad vm_\vm\()_l3_device - HYP_VA_TO_PA + DESC_TABLE
end_table vm_\vm\()_l2_device

begin_table vm_\vm\()_l3_device
        at_address vm_\vm\()_l3_device, IPA_UART, 3
        .quad UART_PA + S2_DEVICE + S2_RW + S2_XN + DESC_PAGE
end_table vm_\vm\()_l3_device

begin_table vm_\vm\()_l2_ram
        at_address vm_\vm\()_l2_ram, IPA_RAM, 2
        .quad (\ram) + S2_NORMAL + S2_RW + DESC_BLOCK
        at_address vm_\vm\()_l2_ram, IPA_PAGES, 2
        .quad vm_\vm\()_l3_pages - HYP_VA_TO_PA + DESC_TABLE
        at_address vm_\vm\()_l2_ram, IPA_RO_BLOCK, 2
        .quad (\ro_block) + S2_NORMAL + S2_R + S2_XN + DESC_BLOCK
        at_address vm_\vm\()_l2_ram, IPA_HEAP_BLOCK, 2
        .quad (\heap) + S2_NORMAL + S2_RW + S2_XN + DESC_BLOCK
end_table vm_\vm\()_l2_ram

begin_table vm_\vm\()_l2_high
        at_address vm_\vm\()_l2_high, IPA_HIGH_BLOCK, 2
        .quad (\high) + S2_NORMAL + S2_RW + S2_XN + DESC_BLOCK
end_table vm_\vm\()_l2_high

// One page of each kind. The guest walks into those that are marked with an experiment's name.
begin_table vm_\vm\()_l3_pages
        at_address vm_\vm\()_l3_pages, IPA_SCATTERED, 3
        pages 4, (\pages) + 0x3000, S2_NORMAL + S2_RW + S2_XN, -4096
        at_address vm_\vm\()_l3_pages, IPA_RO_PAGES, 3          // guest_perm_store
        pages 2, (\pages) + 0x4000, S2_NORMAL + S2_R + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_ROX_PAGE, 3
        pages 1, (\pages) + 0x6000, S2_NORMAL + S2_R
        at_address vm_\vm\()_l3_pages, IPA_AF_PAGE, 3           // guest_af_load
        pages 1, (\pages) + 0x7000, S2_NORMAL_NO_AF + S2_RW + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_NOACCESS_PAGE, 3     // guest_s1ptw_perm_load
        pages 1, (\pages) + 0x8000, S2_NORMAL + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_XN_PAGE, 3           // guest_iabt_xn
        pages 1, (\pages) + 0x9000, S2_NORMAL + S2_RW + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_ASIZE_PAGE, 3        // guest_asize_load
        pages 1, ASIZE_PA, S2_NORMAL + S2_RW + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_NC_PAGE, 3
        pages 1, (\pages) + 0xb000, S2_NONCACHEABLE + S2_RW + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_HOLE_TABLE, 3        // guest_s1ptw_load
        .quad DESC_INVALID
        at_address vm_\vm\()_l3_pages, IPA_HOLE_CODE, 3         // guest_iabt_unmapped
        .quad DESC_INVALID
        at_address vm_\vm\()_l3_pages, IPA_WO_PAGE, 3
        pages 1, (\pages) + 0xe000, S2_NORMAL + S2_W + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_SHARED_PAGE, 3       // in both VMs, on purpose
        pages 1, SHARED_PAGE_PA, S2_NORMAL + S2_RW + S2_XN
        at_address vm_\vm\()_l3_pages, IPA_CONTIGUOUS, 3
        pages 16, (\pages) + 0x10000, S2_NORMAL + S2_RW + S2_XN + DESC_CONTIGUOUS
end_table vm_\vm\()_l3_pages
.endm

        vm_tables a, VM_A_RAM, VM_A_PAGES, VM_A_RO_BLOCK, VM_A_HEAP, VM_A_HIGH
        vm_tables b, VM_B_RAM, VM_B_PAGES, VM_B_RO_BLOCK, VM_B_HEAP, VM_B_HIGH, VM_B_ROM
