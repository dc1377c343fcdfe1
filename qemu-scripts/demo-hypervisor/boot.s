// From reset to the hypervisor's own address space.
//
// QEMU enters here at EL2 (`-M virt,virtualization=on`, an ELF file given by -kernel), MMU off, at the
// physical address that the ELF header names. A second CPU enters at boot_secondary, by PSCI.

        .include "layout.inc"

        .section .boot, "ax"
        .globl boot_primary, boot_secondary, boot_wrong_el

boot_primary:
        mov     x0, #0
boot_secondary:                         // x0: number of this CPU; PSCI passes it as the context ID
        mrs     x1, CurrentEL
        cmp     x1, #2 << 2
        b.ne    boot_wrong_el

        ldr     x1, =MAIR_VALUE
        msr     mair_el2, x1
        ldr     x1, =TCR_EL2_VALUE
        msr     tcr_el2, x1
        ldr     x1, =hyp_l0 - HYP_VA_TO_PA
        msr     ttbr0_el2, x1
        ldr     x1, =hyp_vectors
        msr     vbar_el2, x1

        // Both VMs have the same stage-2 shape, so VTCR_EL2 is set once; which tables and VMID are in use
        // is VTTBR_EL2's part of each world switch. Zero means: the host runs, or is about to.
        ldr     x1, =VTCR_EL2_VALUE
        msr     vtcr_el2, x1
        msr     vttbr_el2, xzr
        ldr     x1, =HCR_HOST
        msr     hcr_el2, x1
        mov     x1, #CPTR_HOST
        msr     cptr_el2, x1
        mov     x1, #3                  // EL1 may use the physical counter and timer
        msr     cnthctl_el2, x1
        msr     cntvoff_el2, xzr

        // Whatever the TLBs hold, it is not ours.
        tlbi    alle2
        tlbi    alle1
        dsb     sy
        isb
        ldr     x1, =SCTLR_EL2_VALUE
        msr     sctlr_el2, x1
        isb                             // from here on the PC is a VA, of the identity map
        ldr     x1, =hyp_init
        br      x1

boot_wrong_el:                          // not EL2: was virtualization=on forgotten?
        wfe
        b       boot_wrong_el

        .ltorg
