/*
 * The guest of the rig: EL1 code that gives its hypervisor one exit of each kind, over and over.
 *
 * The VMM copies everything between guest_image and guest_image_end to the start of the guest's memory, so the
 * code has to run wherever it is: it only uses PC-relative addresses and those of its parameter block.
 *
 * Entered at EL1 with the MMU off and x0 = IPA of the parameter block (guest.h).
 *
 * x19 parameter block   x20 round   x21 MMIO   x22 read-only   x23 logged   x24 high   x25 fresh   x26 fresh touches
 */

#include "guest.h"

        .section .rodata
        .balign 4096
        .global guest_image
guest_image:
        mov     x19, x0
        mov     x0, #(3 << 20)          /* CPACR_EL1.FPEN: let EL1 use FP, so that only the hypervisor traps it */
        msr     cpacr_el1, x0
        ldr     x1, [x19, #P_CODE]
        ldr     x6, [x19, #P_SELF]
        ldr     x0, [x19, #P_MMU]
        cbz     x0, 1f

        /*
         * Turn stage 1 on. The next instruction is fetched through it, so TTBR0_EL1 maps this page at VA = IPA; the
         * jump that follows then leaves for the upper half, where VA and IPA differ.
         */
        ldr     x2, [x19, #P_MAIR]
        ldr     x3, [x19, #P_TCR]
        ldr     x4, [x19, #P_TTBR0]
        ldr     x5, [x19, #P_TTBR1]
        msr     mair_el1, x2
        msr     tcr_el1, x3
        msr     ttbr0_el1, x4
        msr     ttbr1_el1, x5
        isb
        mrs     x2, sctlr_el1
        mov     x3, #0x1005             /* I, C and M */
        orr     x2, x2, x3
        msr     sctlr_el1, x2           /* the first table is read here: a stage-2 fault on a stage-1 walk */
        isb
1:      mov     x19, x6
        add     x2, x1, #(guest_vectors - guest_image)
        msr     vbar_el1, x2
        isb
        add     x2, x1, #(guest_main - guest_image)
        br      x2

guest_main:
        ldr     x21, [x19, #P_MMIO]
        ldr     x22, [x19, #P_ROM]
        ldr     x23, [x19, #P_LOG]
        ldr     x24, [x19, #P_HIGH]
        ldr     x25, [x19, #P_FRESH]
        mov     x20, #0
        mov     x26, #0

round:
        add     x20, x20, #1

        ldr     x0, [x19, #P_SPIN]
2:      cbz     x0, 3f
        sub     x0, x0, #1
        b       2b
3:
        .global guest_spun
guest_spun:                             /* a place to break: every round passes here, outside any exit */

        /* Trapped system registers: HCR_EL2.TID3 catches the reads, MDCR_EL2.TDOSA the write. */
        mrs     x0, id_aa64pfr0_el1
        mrs     x0, id_aa64mmfr0_el1
        msr     oslar_el1, xzr

        /* Calls: PSCI_VERSION, a function that nobody has, and the other conduit. */
        mov     w0, #0x84000000
        hvc     #0
        mov     w0, #0xc6000000
        movk    w0, #0xbeef
        hvc     #0x1234
        mov     w0, #0x84000000
        smc     #0

        /* MMIO: no memory slot, a translation fault with the access in the syndrome (ISV = 1). */
        and     x1, x20, #63
        add     x1, x21, x1, lsl #3
        add     x2, x1, #MMIO_WRITE
        str     w20, [x2]
        add     x2, x1, #MMIO_READ
        ldr     x3, [x2]

        /* Fresh memory: a translation fault that the hypervisor settles by itself. */
        mov     x1, #FRESH_STRIDE
        madd    x1, x26, x1, x25
        str     x20, [x1]
        add     x26, x26, #1
        cmp     x26, #FRESH_TOUCHES
        b.ne    4f
        mov     x26, #0
        str     w20, [x21, #MMIO_DOORBELL]

        /* Read-only slot: the load maps the page, the store is a Permission fault and ends in the VMM as MMIO. */
4:      and     x1, x20, #(ROM_PAGES - 1)
        add     x1, x22, x1, lsl #12
        and     x2, x20, #0x3ff
        add     x1, x1, x2, lsl #2
        ldr     w3, [x1]
        str     w20, [x1]

        /* Logged slot: the load maps the page read-only, the store is a Permission fault that the kernel settles. */
        and     x1, x20, #(LOG_PAGES - 1)
        add     x1, x23, x1, lsl #12
        ldr     x3, [x1, #8]
        str     x20, [x1, #8]

        /* The slot above 512 GiB: the second of the concatenated stage-2 tables. */
        str     x20, [x24]

        fmov    d0, x20                 /* an FP trap, when the hypervisor has given FP to somebody else */

        ldr     x0, [x19, #P_WFI]
        cbz     x0, round
        wfi
        b       round

/* The guest never takes an exception: if it does, tell the VMM why and stop. */
guest_panic:
        ldr     x21, [x19, #P_MMIO]
        mrs     x0, esr_el1
        str     x0, [x21, #MMIO_PANIC]
5:      wfi
        b       5b

        .balign 2048
guest_vectors:
        .rept   16
        .balign 128
        b       guest_panic
        .endr
        .balign 128
        .global guest_image_end
guest_image_end:
