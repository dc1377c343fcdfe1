// The host: what Linux is to KVM, reduced to its loop. It runs at EL1 with an MMU of its own and without
// stage 2, lets the vCPUs of its CPU take turns, and handles what they trap for.
//
// A vCPU has its turn until it executes WFI. Registers: x19 this CPU, x20 the vCPU (at the host's address),
// x21 the VM, x22 turns so far, x23 a constant that nobody may change.

        .include "layout.inc"
        .include "descriptors.inc"

        .equ HOST_CANARY,       0x40570000      // x23, plus the number of the CPU
        .equ HOST_TPIDR,        0x40570e10      // TPIDR_EL0, plus the number of the CPU
        .equ MMIO_VALUE,        0x5ca1ab1e      // what every load from the emulated device gives

        .section .host.text, "ax"

.macro place name:req
        .globl \name
        .type \name, %function
\name:
.endm

        .balign 0x800
place host_vectors
        .rept 16
        .balign 0x80
        b       host_unexpected
        .endr
place host_unexpected
        b       host_unexpected

place host_entry                        // x0 = number of this CPU
        mov     x19, x0
        ldr     x1, =host_stacks
        add     x1, x1, x0, lsl #10
        add     sp, x1, #1024
        ldr     x23, =HOST_CANARY
        add     x23, x23, x19
        ldr     x1, =HOST_TPIDR
        add     x1, x1, x19
        msr     tpidr_el0, x1
        mov     x22, #0

place host_loop
        mov     x21, #0

place host_next_vm
        mov     x1, #MAX_CPUS
        madd    x1, x21, x1, x19
        ldr     x20, =HOST_VA + HOST_SHARED
        add     x20, x20, x1, lsl #11   // VCPU_SIZE
        tst     x22, #0xff              // now and then, and at first: a host call of another kind
        b.ne    host_run_vcpu
        ldr     x0, =hyp_flush_vm
        ldr     x1, [x20, #VCPU_VTTBR]
        hvc     #0

place host_run_vcpu
        ldr     x0, =hyp_vcpu_run
        ldr     x1, =HOST_TO_HYP_VCPU   // the same memory, as EL2 sees it
        add     x1, x1, x20
        hvc     #0
        bl      host_handle_exit
        cbz     x0, host_run_vcpu

        add     x21, x21, #1
        cmp     x21, #2
        b.lo    host_next_vm
        add     x22, x22, #1
        b       host_loop

// What a trap asks for. Returns x0 = 1 when the vCPU's turn is over. x9 = ESR_EL2 of the trap.
place host_handle_exit
        ldr     x9, [x20, #VCPU_ESR]
        lsr     x10, x9, #26
        cmp     x10, #0x24
        b.eq    host_data_abort
        cmp     x10, #0x20
        b.eq    host_instruction_abort
        cmp     x10, #0x18
        b.eq    host_sysreg
        cmp     x10, #0x16
        b.eq    host_hvc
        cmp     x10, #0x17
        b.eq    host_smc
        cmp     x10, #0x01
        b.eq    host_wfi
        cmp     x10, #0x07              // FP and SIMD: this host has none to offer
        b.eq    host_skip
        cmp     x10, #0x19              // SVE: nor that
        b.eq    host_skip
        b       host_unexpected

// A load that may be emulated (ISV) and that found nothing mapped is a load from the device. All other data
// aborts are the guest's experiments: step over them.
place host_data_abort
        and     x11, x9, #0x3c          // DFSC without the level
        cmp     x11, #0x04              // Translation fault
        b.ne    host_skip
        tbz     x9, #24, host_skip      // ISV
        tbnz    x9, #6, host_skip       // WnR
        tbnz    x9, #7, host_skip       // S1PTW
        ubfx    x11, x9, #16, #5        // SRT
        ldr     x12, =MMIO_VALUE
        cmp     x11, #31                // the zero register
        b.eq    host_skip
        str     x12, [x20, x11, lsl #3]
        b       host_skip

// The guest called something that it cannot execute: return from that call.
place host_instruction_abort
        ldr     x11, [x20, #CTX_X0 + 8 * 30]
        str     x11, [x20, #CTX_PC]
        mov     x0, #0
        ret

// A read gives the host's own ID_AA64PFR0_EL1 for that register and zero for all others; a write is dropped.
place host_sysreg
        tbz     x9, #0, host_skip       // Direction: 0 = write
        ubfx    x11, x9, #5, #5         // Rt
        cmp     x11, #31
        b.eq    host_skip
        mov     x12, #0
        ldr     x13, =0x3ffc1e          // Op0, Op2, Op1, CRn and CRm of the syndrome
        and     x13, x9, x13
        ldr     x14, =0x300008          // those of ID_AA64PFR0_EL1: 3, 0, 0, 0, 4
        cmp     x13, x14
        b.ne    1f
        mrs     x12, id_aa64pfr0_el1
1:      str     x12, [x20, x11, lsl #3]
        b       host_skip

// SMCCC: the function is in x0, the result too. An HVC's return address is already the next instruction, a
// trapped SMC's is the SMC.
place host_smc
        ldr     x11, [x20, #CTX_PC]
        add     x11, x11, #4
        str     x11, [x20, #CTX_PC]
place host_hvc
        ldr     w11, [x20, #CTX_X0]
        mov     x12, #-1                // NOT_SUPPORTED
        ldr     w13, =PSCI_VERSION
        cmp     w11, w13
        b.ne    1f
        ldr     w12, =0x10001           // PSCI 1.1
1:      ldr     w13, =SMCCC_VERSION
        cmp     w11, w13
        b.ne    2f
        ldr     w12, =0x10002           // SMCCC 1.2
2:      str     x12, [x20, #CTX_X0]
        mov     x0, #0
        ret

place host_wfi
        ldr     x11, [x20, #CTX_PC]
        add     x11, x11, #4
        str     x11, [x20, #CTX_PC]
        mov     x0, #1
        ret

place host_skip
        ldr     x11, [x20, #CTX_PC]
        add     x11, x11, #4
        str     x11, [x20, #CTX_PC]
        mov     x0, #0
        ret
        .ltorg

// ---- stage 1 of the host: the upper half, by TTBR1_EL1 -------------------------------------------
        .section .host.rodata, "a"
begin_table host_l0
        at_address host_l0, HOST_VA, 0
        .quad host_l1 - HOST_VA_TO_PA + DESC_TABLE
end_table host_l0

begin_table host_l1
        at_address host_l1, HOST_VA, 1
        .quad host_l2 - HOST_VA_TO_PA + DESC_TABLE
end_table host_l1

begin_table host_l2
        at_address host_l2, HOST_VA, 2
        .quad host_l3 - HOST_VA_TO_PA + DESC_TABLE
end_table host_l2

begin_table host_l3
        at_address host_l3, HOST_VA + HOST_TEXT, 3
        pages HOST_TEXT_PAGES, HOST_PA + HOST_TEXT, S1_EL1_RX
        at_address host_l3, HOST_VA + HOST_RODATA, 3
        pages HOST_RODATA_PAGES, HOST_PA + HOST_RODATA, S1_EL1_R
        at_address host_l3, HOST_VA + HOST_DATA, 3
        pages HOST_DATA_PAGES, HOST_PA + HOST_DATA, S1_EL1_RW
        at_address host_l3, HOST_VA + HOST_SHARED, 3
        pages HYP_SHARED_PAGES, HYP_PA + HYP_SHARED, S1_EL1_RW
end_table host_l3

        .section .host.data, "aw"
        .balign 16
        .globl host_stacks
host_stacks:
        .fill   MAX_CPUS * 1024, 1, 0
