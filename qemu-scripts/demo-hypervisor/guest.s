// The guest: a tour of the reasons for which a guest leaves for its hypervisor.
//
// Each label guest_... below stands on the one instruction that traps (the two guest_iabt_... are the
// addresses that it jumps to). Both VMs run this program, each in its own memory, a vCPU a CPU. It starts
// with its MMU on, at GUEST_VA, x0 = number of the vCPU, x1 = number of the VM.
//
// It is a program of its own (guest.elf), as a guest's kernel is to a real hypervisor; the build puts its
// bytes into demo.elf once for each VM.

        .include "layout.inc"
        .include "descriptors.inc"

        .equ GUEST_CANARY,      0x60e50000      // TPIDR_EL0, TPIDR_EL1, x18 and x23: plus 256 * VM + vCPU

        .section .guest.text, "ax"
        .arch armv8.2-a+sve

.macro place name:req
        .globl \name
        .type \name, %function
\name:
.endm

place guest_start
        ldr     x2, =guest_stacks
        add     x2, x2, x0, lsl #10
        add     sp, x2, #1024
        mov     x19, x0
        mov     x20, x1
        ldr     x23, =GUEST_CANARY
        add     x23, x23, x19
        add     x23, x23, x20, lsl #8
        msr     tpidr_el0, x23
        msr     tpidr_el1, x23
        mov     x18, x23
        mov     x21, #0                 // rounds so far

place guest_loop
        // Memory that is there: nothing of this traps.
        ldr     x1, =guest_rounds
        str     x21, [x1, x19, lsl #3]
        ldr     x1, =VA_HIGH
        str     x21, [x1, x19, lsl #3]
        ldr     x1, =VA_SCATTERED
        str     x21, [x1, x19, lsl #3]
        ldr     x1, =VA_SHARED
        str     x23, [x1, x19, lsl #3]  // the other VM can see this
        ldr     x1, =VA_UART
        ldr     w2, [x1, #0x18]         // UARTFR of the real UART

        // Calls to the hypervisor, and to firmware that it stands in for.
        ldr     w0, =PSCI_VERSION
place guest_hvc
        hvc     #0
        ldr     w0, =SMCCC_VERSION
place guest_smc
        smc     #0

        // A device that the host emulates: a load into w4, a store of x5.
        ldr     x1, =VA_MMIO
place guest_mmio_load
        ldr     w4, [x1, #0x18]
        mov     x5, x21
place guest_mmio_store
        str     x5, [x1]

        // Stage 2 knows the page, but not for writing: Permission faults, HPFAR_EL2 is UNKNOWN. The store of
        // a pair has no valid syndrome (ISV = 0).
        ldr     x1, =VA_RO + 0x128
place guest_perm_store
        str     w5, [x1]
        ldr     x1, =VA_RO_BLOCK + 0x123450
place guest_perm_store_block
        stp     x5, x6, [x1]

        // Access flag clear at stage 2; an output address that is too large.
        ldr     x1, =VA_AF + 0x340
place guest_af_load
        ldrh    w6, [x1]
        ldr     x1, =VA_ASIZE + 0x568
place guest_asize_load
        ldrsb   x6, [x1]

        // The walk itself faults: the stage-1 table is not there for stage 2, or may not be read.
        ldr     x1, =VA_S1PTW + 0x780
place guest_s1ptw_load
        ldr     x6, [x1]
        ldr     x1, =VA_S1PTW_PERM + 0x9a8
place guest_s1ptw_perm_load
        ldr     x6, [x1]

        // Calls into the void, and into a page that stage 2 lets nobody execute.
        ldr     x9, =guest_iabt_unmapped
        blr     x9
        ldr     x9, =guest_iabt_xn
        blr     x9
        .globl guest_iabt_unmapped, guest_iabt_xn
        .equ    guest_iabt_unmapped, VA_HOLE_CODE + 0x40
        .equ    guest_iabt_xn, VA_XN + 0x80

        // System registers: an ID register, and an interrupt to another vCPU.
place guest_mrs
        mrs     x3, id_aa64pfr0_el1
        mov     x7, x19
place guest_msr
        msr     s3_0_c12_c11_5, x7      // ICC_SGI1R_EL1

        // Floating point, and SVE where the CPU has it.
place guest_fp
        fmov    d0, x7
        ubfx    x3, x3, #32, #4         // ID_AA64PFR0_EL1.SVE
        cbz     x3, guest_wfi
place guest_sve
        rdvl    x8, #1

        // Nothing left to do: the host gives the CPU to the next vCPU.
place guest_wfi
        wfi
        add     x21, x21, #1
        b       guest_loop
        .ltorg

        .balign 0x800                   // must be at GUEST_VA + 0x800
place guest_vectors
        .rept 16
        .balign 0x80
        b       guest_unexpected
        .endr
place guest_unexpected
        b       guest_unexpected

// ---- stage 1 of the guest ------------------------------------------------------------------------
// The lower half (TTBR0_EL1, 48 bits, four levels): the window.
        .section .guest.tables, "a"
begin_table guest_window_l0
        at_address guest_window_l0, WINDOW_VA, 0
        .quad guest_window_l1 - GUEST_VA_TO_IPA + DESC_TABLE
end_table guest_window_l0

begin_table guest_window_l1
        at_address guest_window_l1, WINDOW_VA, 1
        .quad guest_window_l2 - GUEST_VA_TO_IPA + DESC_TABLE
end_table guest_window_l1

begin_table guest_window_l2
        at_address guest_window_l2, WINDOW_VA, 2
        .quad guest_window_l3 - GUEST_VA_TO_IPA + DESC_TABLE
        at_address guest_window_l2, VA_S1PTW, 2
        .quad IPA_HOLE_TABLE + DESC_TABLE
        at_address guest_window_l2, VA_S1PTW_PERM, 2
        .quad IPA_NOACCESS_PAGE + DESC_TABLE
        at_address guest_window_l2, VA_HIGH, 2
        .quad IPA_HIGH_BLOCK + S1_EL1_RW + S1_NOT_GLOBAL + DESC_BLOCK
        at_address guest_window_l2, VA_RO_BLOCK, 2
        .quad IPA_RO_BLOCK + S1_EL1_RW + S1_NOT_GLOBAL + DESC_BLOCK
end_table guest_window_l2

begin_table guest_window_l3
        at_address guest_window_l3, VA_MMIO, 3
        pages 1, IPA_MMIO, S1_EL1_DEVICE + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_SCATTERED, 3
        pages 4, IPA_SCATTERED, S1_EL1_RW + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_RO, 3
        pages 2, IPA_RO_PAGES, S1_EL1_RW + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_AF, 3
        pages 1, IPA_AF_PAGE, S1_EL1_RW + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_XN, 3
        pages 1, IPA_XN_PAGE, S1_EL1_RWX + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_HOLE_CODE, 3
        pages 1, IPA_HOLE_CODE, S1_EL1_RWX + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_ASIZE, 3
        pages 1, IPA_ASIZE_PAGE, S1_EL1_RW + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_UART, 3
        pages 1, IPA_UART, S1_EL1_DEVICE + S1_NOT_GLOBAL
        at_address guest_window_l3, VA_SHARED, 3
        pages 1, IPA_SHARED_PAGE, S1_EL1_RW + S1_NOT_GLOBAL
end_table guest_window_l3

// The upper half (TTBR1_EL1, 39 bits, three levels): the program.
begin_table guest_l1
        at_address guest_l1, GUEST_VA, 1
        .quad guest_l2 - GUEST_VA_TO_IPA + DESC_TABLE
end_table guest_l1

begin_table guest_l2
        at_address guest_l2, GUEST_VA, 2
        .quad guest_l3 - GUEST_VA_TO_IPA + DESC_TABLE
end_table guest_l2

begin_table guest_l3
        at_address guest_l3, GUEST_VA + GUEST_TEXT, 3
        pages GUEST_TEXT_PAGES, GUEST_IPA + GUEST_TEXT, S1_EL1_RX
        at_address guest_l3, GUEST_VA + GUEST_TABLES, 3
        pages GUEST_TABLES_PAGES, GUEST_IPA + GUEST_TABLES, S1_EL1_R
        at_address guest_l3, GUEST_VA + GUEST_DATA, 3
        pages GUEST_DATA_PAGES, GUEST_IPA + GUEST_DATA, S1_EL1_RW
end_table guest_l3

        .section .guest.data, "aw"
        .balign 16
        .globl guest_stacks, guest_rounds
guest_stacks:
        .fill   MAX_CPUS * 1024, 1, 0
guest_rounds:                           // how often each vCPU has been through the loop
        .fill   MAX_CPUS, 8, 0
