// The hypervisor: exceptions to EL2, and the world switch.
//
// It does what the first KVM for arm64 did, and no more. The kernel of the machine, here called the host,
// runs at EL1 without stage 2. To run a vCPU it asks EL2 by HVC; EL2 swaps the EL1 registers for the
// guest's, switches stage 2 on and enters the guest. Whatever traps from the guest is written down in the
// vCPU, the host gets its registers back, and its HVC returns. What the trap *means* is the host's job.
//
// So an exception from EL1 is one of two things, and VTTBR_EL2 tells which: 0, the host calls; else a guest
// trapped.

        .include "layout.inc"

        .ifndef PLANTED_BUG
        .equ PLANTED_BUG, 0
        .endif

        .section .hyp.text, "ax"

// Marks a place that a person may want to break on.
.macro place name:req
        .globl \name
        .type \name, %function
\name:
.endm

// ---- vectors -------------------------------------------------------------------------------------
.macro vector target:req
        .balign 0x80
        b       \target
.endm

        .balign 0x800
place hyp_vectors
        .rept 8                         // from EL2 itself, with SP_EL0 and with SP_EL2: never
        vector  el2_unexpected
        .endr
        vector  el1_sync                // from a lower EL in AArch64: synchronous,
        vector  el2_unexpected          // IRQ: nothing here enables an interrupt,
        vector  el2_unexpected          // FIQ,
        vector  el2_unexpected          // SError
        .rept 4                         // from a lower EL in AArch32: never
        vector  el2_unexpected
        .endr

place el2_unexpected
        b       el2_unexpected

// ---- synchronous exceptions from EL1 -------------------------------------------------------------
place el1_sync
        stp     x0, x1, [sp, #-16]!
        stp     x2, x3, [sp, #-16]!
        mrs     x1, esr_el2
        lsr     x2, x1, #26             // EC
        cmp     x2, #0x16               // HVC from AArch64?
        b.ne    el1_trap
        mrs     x3, vttbr_el2
        cbnz    x3, el1_trap            // a guest's HVC is a trap as any other

// The host calls a function of the hypervisor: x0 is its EL2 address, x1 to x3 are its arguments.
place el1_host_call
        ldp     x2, x3, [sp], #16
        ldp     x0, x1, [sp], #16
        stp     x29, x30, [sp, #-16]!
        mov     x16, x0
        mov     x0, x1
        mov     x1, x2
        mov     x2, x3
        blr     x16
        ldp     x29, x30, [sp], #16
place el1_host_return
        eret

// A guest trapped. On the stack: its x0 to x3. x1 = ESR_EL2, x2 = EC.
place el1_trap
        mrs     x0, tpidr_el2           // the vCPU that runs on this CPU
        str     x1, [x0, #VCPU_ESR]
        mrs     x3, far_el2
        str     x3, [x0, #VCPU_FAR]
        str     xzr, [x0, #VCPU_HPFAR]
        str     xzr, [x0, #VCPU_IPA_FROM]

        cmp     x2, #0x24               // Data Abort from a lower EL
        b.eq    el1_abort
        cmp     x2, #0x20               // Instruction Abort from a lower EL
        b.ne    __guest_exit

// Which IPA? HPFAR_EL2 has it, unless this is a Permission fault that is not on a stage-1 table walk:
// then HPFAR_EL2 is UNKNOWN, and the guest's own stage 1 has to say where FAR_EL2 leads.
place el1_abort
        and     x3, x1, #0x3c           // DFSC or IFSC without the level
        cmp     x3, #0x0c               // Permission fault?
        b.ne    el1_abort_hpfar
        tbnz    x1, #7, el1_abort_hpfar // S1PTW

place el1_abort_at
        mrs     x3, par_el1             // the guest may be using it
        stp     x2, x3, [sp, #-16]!
        mrs     x3, far_el2
        at      s1e1r, x3
        isb
        mrs     x1, par_el1
        ldp     x2, x3, [sp], #16
        msr     par_el1, x3
        tbnz    x1, #0, el1_abort_retry // stage 1 says no
        ubfx    x1, x1, #12, #36        // PA[47:12], here an IPA's
        lsl     x1, x1, #4              // as HPFAR_EL2.FIPA
        str     x1, [x0, #VCPU_HPFAR]
        mov     x3, #IPA_FROM_AT
        str     x3, [x0, #VCPU_IPA_FROM]
        b       __guest_exit

// Another vCPU of the VM changed the mapping in between: let the guest do it again, and fault again or not.
place el1_abort_retry
        ldp     x2, x3, [sp], #16
        ldp     x0, x1, [sp], #16
        eret

place el1_abort_hpfar
        mrs     x3, hpfar_el2
        str     x3, [x0, #VCPU_HPFAR]
        mov     x3, #IPA_FROM_HPFAR
        str     x3, [x0, #VCPU_IPA_FROM]
        // falls through

// ---- the world switch ----------------------------------------------------------------------------
.macro save_one reg, base
        mrs     x3, \reg
        str     x3, [\base, #CTX_\reg]
.endm
.macro restore_one reg, base
        ldr     x3, [\base, #CTX_\reg]
        msr     \reg, x3
.endm
// The planted bug, half one: a guest enters with whatever TPIDR_EL0 the last world on this CPU left.
.macro restore_one_of_guest reg, base
        .ifnc \reg, tpidr_el0
        restore_one \reg, \base
        .elseif !PLANTED_BUG
        restore_one \reg, \base
        .endif
.endm
// Two neighbouring general registers to or from their slots.
.macro pair operation, first, second, base
        \operation x\first, x\second, [\base, #CTX_X0 + 8 * \first]
.endm

// Out of the guest. x0 = vCPU; on the stack: the guest's x0 to x3.
place __guest_exit
        pair    stp, 4, 5, x0
        pair    stp, 6, 7, x0
        pair    stp, 8, 9, x0
        pair    stp, 10, 11, x0
        pair    stp, 12, 13, x0
        pair    stp, 14, 15, x0
        pair    stp, 16, 17, x0
        pair    stp, 18, 19, x0
        pair    stp, 20, 21, x0
        pair    stp, 22, 23, x0
        pair    stp, 24, 25, x0
        pair    stp, 26, 27, x0
        pair    stp, 28, 29, x0
        str     x30, [x0, #CTX_X0 + 8 * 30]
        ldp     x4, x5, [sp], #16
        stp     x4, x5, [x0, #CTX_X0 + 8 * 2]
        ldp     x4, x5, [sp], #16
        stp     x4, x5, [x0, #CTX_X0]
        mrs     x4, elr_el2
        mrs     x5, spsr_el2
        stp     x4, x5, [x0, #CTX_PC]
        for_each_el1_register save_one, x0

        ldr     x4, [x0, #VCPU_EXITS]
        add     x4, x4, #1
        str     x4, [x0, #VCPU_EXITS]
        ldr     x5, [x0, #VCPU_ESR]
        lsr     x5, x5, #26
        add     x6, x0, #VCPU_EXITS_BY_EC
        ldr     x4, [x6, x5, lsl #3]
        add     x4, x4, #1
        str     x4, [x6, x5, lsl #3]

        ldr     x4, =HCR_HOST
        msr     hcr_el2, x4
        mov     x4, #CPTR_HOST
        msr     cptr_el2, x4
        mrs     x4, mpidr_el1
        msr     vmpidr_el2, x4
        msr     vttbr_el2, xzr
        msr     tpidr_el2, xzr

        ldr     x2, [x0, #VCPU_HOST]
        for_each_el1_register restore_one, x2
        ldp     x4, x5, [x2, #CTX_PC]
        msr     elr_el2, x4
        msr     spsr_el2, x5
        pair    ldp, 19, 20, x2
        pair    ldp, 21, 22, x2
        .if PLANTED_BUG                 // half two: the host's x23 is not restored, it keeps the guest's
        ldr     x24, [x2, #CTX_X0 + 8 * 24]
        .else
        pair    ldp, 23, 24, x2
        .endif
        pair    ldp, 25, 26, x2
        pair    ldp, 27, 28, x2
        pair    ldp, 29, 30, x2
        // To the host this was a function call, which may clobber x0 to x18. Still, what was the guest's
        // is none of its business.
        .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18
        mov     x\n, xzr
        .endr
        mov     x0, xzr
        ret                             // to el1_host_call

// Host call: run a vCPU until it traps. x0 = vCPU, an EL2 address.
place hyp_vcpu_run
        ldr     x2, [x0, #VCPU_HOST]
        pair    stp, 19, 20, x2
        pair    stp, 21, 22, x2
        pair    stp, 23, 24, x2
        pair    stp, 25, 26, x2
        pair    stp, 27, 28, x2
        pair    stp, 29, 30, x2
        mrs     x4, elr_el2
        mrs     x5, spsr_el2
        stp     x4, x5, [x2, #CTX_PC]
        for_each_el1_register save_one, x2

        msr     tpidr_el2, x0
        ldr     x4, [x0, #VCPU_VMPIDR]
        msr     vmpidr_el2, x4
        mov     x4, #CPTR_GUEST
        msr     cptr_el2, x4
        ldr     x4, [x0, #VCPU_VTTBR]
        msr     vttbr_el2, x4
        ldr     x4, [x0, #VCPU_HCR]
        msr     hcr_el2, x4
        for_each_el1_register restore_one_of_guest, x0

// Into the guest. x0 = vCPU.
place __guest_enter
        ldp     x4, x5, [x0, #CTX_PC]
        msr     elr_el2, x4
        msr     spsr_el2, x5
        pair    ldp, 2, 3, x0
        pair    ldp, 4, 5, x0
        pair    ldp, 6, 7, x0
        pair    ldp, 8, 9, x0
        pair    ldp, 10, 11, x0
        pair    ldp, 12, 13, x0
        pair    ldp, 14, 15, x0
        pair    ldp, 16, 17, x0
        pair    ldp, 18, 19, x0
        pair    ldp, 20, 21, x0
        pair    ldp, 22, 23, x0
        pair    ldp, 24, 25, x0
        pair    ldp, 26, 27, x0
        pair    ldp, 28, 29, x0
        ldr     x30, [x0, #CTX_X0 + 8 * 30]
        ldp     x0, x1, [x0, #CTX_X0]
place __guest_eret
        eret

// Host call: forget all translations of a VM. x0 = the VM's VTTBR_EL2. Stage 2 is not on here, but
// VTTBR_EL2 is not 0 either while this runs: TLB maintenance acts on the VMID found there.
place hyp_flush_vm
        msr     vttbr_el2, x0
        isb
        dsb     ishst
        tlbi    vmalls12e1is
        dsb     ish
        msr     vttbr_el2, xzr
        isb
        ret
        .ltorg

// ---- start ---------------------------------------------------------------------------------------
// x0 = number of this CPU. MMU on, at our own addresses.
place hyp_init
        ldr     x1, =hyp_stacks
        add     x1, x1, x0, lsl #10
        add     sp, x1, #1024
        mov     x19, x0
        msr     tpidr_el2, xzr
        mrs     x1, midr_el1
        msr     vpidr_el2, x1
        mrs     x1, mpidr_el1
        msr     vmpidr_el2, x1
        cbnz    x19, hyp_start_host

        ldr     x0, =hyp_banner
        bl      hyp_puts
        mov     x20, #1
1:      ldr     x0, =PSCI_CPU_ON        // QEMU answers PSCI itself: by SMC when virtualization=on
        mov     x1, x20                 // MPIDR: Aff0 counts the CPUs
        ldr     x2, =boot_secondary
        mov     x3, x20
        smc     #0                      // fails when the machine has no such CPU, and that is fine
        add     x20, x20, #1
        cmp     x20, #MAX_CPUS
        b.lo    1b

// Enter the host as if it had been switched out before: its context says where it starts.
place hyp_start_host
        ldr     x2, =hyp_host_contexts
        mov     x3, #CTX_END
        madd    x2, x19, x3, x2
        for_each_el1_register restore_one, x2
        ldp     x4, x5, [x2, #CTX_PC]
        msr     elr_el2, x4
        msr     spsr_el2, x5
        mov     x0, x19
        eret

// x0 = a string, ending with a zero byte.
place hyp_puts
        ldr     x1, =HYP_UART_VA
        mov     w2, #0x301              // UARTCR: UARTEN, TXE, RXE
        str     w2, [x1, #0x30]
1:      ldrb    w2, [x0], #1
        cbz     w2, 2f
        str     w2, [x1]                // UARTDR
        b       1b
2:      ret
        .ltorg

        .section .hyp.rodata, "a"
hyp_banner:
        .asciz  "demo hypervisor: EL2 is up\r\n"

// ---- data: stacks, and a host context a CPU ------------------------------------------------------
        .section .hyp.data, "aw"
        .balign 16
        .globl hyp_stacks, hyp_host_contexts
hyp_stacks:
        .fill   MAX_CPUS * 1024, 1, 0

// `context_register NAME, VALUE` fills in one slot of a context that began at context_start.
.macro context_register slot:req, value:req
        .org    context_start + \slot
        .quad   \value
.endm

        .balign 64
hyp_host_contexts:
        .set cpu, 0
        .rept MAX_CPUS
        .set context_start, .
        context_register CTX_X0, cpu
        context_register CTX_PC, host_entry
        context_register CTX_PSTATE, PSTATE_EL1H
        context_register CTX_sctlr_el1, SCTLR_EL1_VALUE
        context_register CTX_cpacr_el1, CPACR_EL1_VALUE
        context_register CTX_ttbr1_el1, "host_l0 - HOST_VA_TO_PA"
        context_register CTX_tcr_el1, TCR_EL1_HOST
        context_register CTX_mair_el1, MAIR_VALUE
        context_register CTX_vbar_el1, host_vectors
        .org    context_start + CTX_END
        .set cpu, cpu + 1
        .endr

// ---- the vCPUs, in memory that the host shares ---------------------------------------------------
        .section .hyp.shared, "aw"
        .globl vcpus
// `vcpu VM, NUMBER OF THE VM, VMID, NUMBER OF THE VCPU`: vCPU n of either VM runs on CPU n.
.macro vcpu vm:req, vm_number:req, vmid:req, number:req
        .globl vcpu_\vm\()\number
        .type vcpu_\vm\()\number, %object
        .size vcpu_\vm\()\number, VCPU_SIZE
vcpu_\vm\()\number:
        .set context_start, .
        context_register CTX_X0, \number
        context_register CTX_X0 + 8, \vm_number
        context_register CTX_PC, GUEST_VA
        context_register CTX_PSTATE, PSTATE_EL1H
        context_register CTX_sctlr_el1, SCTLR_EL1_VALUE
        context_register CTX_cpacr_el1, CPACR_EL1_VALUE
        context_register CTX_ttbr0_el1, GUEST_IPA + GUEST_TABLES + (GUEST_ASID << 48)
        context_register CTX_ttbr1_el1, GUEST_IPA + GUEST_TABLES + 0x4000
        context_register CTX_tcr_el1, TCR_EL1_GUEST
        context_register CTX_mair_el1, MAIR_VALUE
        context_register CTX_vbar_el1, GUEST_VA + 0x800
        context_register VCPU_HCR, HCR_GUEST
        context_register VCPU_VTTBR, "vm_\vm\()_root - HYP_VA_TO_PA + (\vmid << 48)"
        context_register VCPU_VMPIDR, 0x80000000 + \number
        context_register VCPU_HOST, hyp_host_contexts + \number * CTX_END
        .org    context_start + VCPU_SIZE
.endm

vcpus:
        vcpu    a, 0, VMID_A, 0
        vcpu    a, 0, VMID_A, 1
        vcpu    b, 1, VMID_B, 0
        vcpu    b, 1, VMID_B, 1
