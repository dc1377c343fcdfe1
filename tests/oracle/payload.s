// The oracle's payload: at EL3, for each case in memory, program the registers, execute one AT, store PAR_EL1.
//
// It is loaded at physical address 0x1000 and finds everything else through the control block at CONTROL, whose layout
// machine.py repeats. All addresses are physical: the MMU of EL3 stays off, so no table of a case can harm it.
//
// A case is CASE_SIZE bytes of 64-bit little-endian words: operation, VA, PSTATE.PAN, then the registers in the order
// of the two lists below. A result is two words: PAR_EL1, and ESR_EL3 of the exception taken in its place or 0.

        .arch   armv8.5-a

        .equ    CONTROL, 0x8000
        .equ    C_COUNT, 0x00           // in: one past the last case to run
        .equ    C_NEXT, 0x08            // in: the first case to run; then the case that is being run
        .equ    C_CASES, 0x10           // in: address of case 0
        .equ    C_RESULTS, 0x18         // in: address of result 0
        .equ    C_STATE, 0x20           // out: 0 running, 1 done, 2 unexpected exception
        .equ    C_ESR, 0x28             // out: ESR_EL3, ELR_EL3 of an unexpected exception
        .equ    C_ELR, 0x30
        .equ    C_OPTIONAL, 0x38        // out: bit n: the nth optional register exists
        .equ    C_ID, 0x40              // out: the ID registers

        .equ    CASE_SIZE, 0x100
        .equ    RESULT_SIZE, 16
        .equ    FIRST_REGISTER, 0x18

        .equ    SCR_NS, 0
        .equ    SCR_EEL2, 18
        .equ    PAN_BIT, 22

// Read or write the nth register of a list, wherever the list says it is.
        .macro  always do
        \do     0, scr_el3
        \do     1, hcr_el2
        \do     2, vtcr_el2
        \do     3, vttbr_el2
        \do     4, sctlr_el1
        \do     5, tcr_el1
        \do     6, ttbr0_el1
        \do     7, ttbr1_el1
        \do     8, mair_el1
        \do     9, sctlr_el2
        \do     10, tcr_el2
        \do     11, ttbr0_el2
        \do     12, mair_el2
        .endm
        .equ    ALWAYS, 13

        .macro  optional do
        \do     0, S3_4_C2_C0_1         // TTBR1_EL2
        \do     1, S3_4_C1_C2_2         // HCRX_EL2
        \do     2, S3_0_C2_C0_3         // TCR2_EL1
        \do     3, S3_4_C2_C0_3         // TCR2_EL2
        \do     4, S3_0_C10_C2_3        // PIR_EL1
        \do     5, S3_0_C10_C2_2        // PIRE0_EL1
        \do     6, S3_4_C10_C2_3        // PIR_EL2
        \do     7, S3_4_C10_C2_2        // PIRE0_EL2
        \do     8, S3_4_C10_C2_5        // S2PIR_EL2
        \do     9, S3_3_C10_C2_4        // POR_EL0
        \do     10, S3_0_C10_C2_4       // POR_EL1
        \do     11, S3_4_C10_C2_4       // POR_EL2
        \do     12, S3_0_C10_C2_1       // MAIR2_EL1
        \do     13, S3_4_C10_C1_1       // MAIR2_EL2
        .endm

        // Secure stage 2: present in the case after the lists, written only while Secure EL2 is enabled.
        .equ    VSTCR, FIRST_REGISTER + 8 * (ALWAYS + 14)
        .equ    VSTTBR, VSTCR + 8
        .equ    HAS_PAN, 14             // next bit of C_OPTIONAL

        .macro  id n, name
        mrs     x0, \name
        str     x0, [x24, #C_ID + 8 * \n]
        .endm

        .macro  probe n, name
        mov     x9, #1                  // cleared by the handler when the register is UNDEFINED
        mrs     x10, \name
        orr     x27, x27, x9, lsl #\n
        .endm

        .macro  write n, name
        ldr     x0, [x20, #FIRST_REGISTER + 8 * \n]
        msr     \name, x0
        .endm

        .macro  write_if n, name
        tbz     x27, #\n, 1f
        ldr     x0, [x20, #FIRST_REGISTER + 8 * (ALWAYS + \n)]
        msr     \name, x0
1:
        .endm

        .text
        .globl  _start
_start:
        b       start

        .balign 0x800
vectors:
        .rept   4                       // current EL with SP_EL0
        b       unexpected
        .balign 0x80
        .endr
        b       synchronous             // current EL with SP_ELx
        .balign 0x80
        .rept   11
        b       unexpected
        .balign 0x80
        .endr

// x28 is 0 while registers are probed, 1 while an AT is executed, 2 elsewhere.
synchronous:
        cbz     x28, undefined_register
        cmp     x28, #1
        b.ne    unexpected
        mrs     x5, esr_el3
        adr     x6, finished
        msr     elr_el3, x6
        eret
undefined_register:
        mov     x9, #0
        mrs     x6, elr_el3
        add     x6, x6, #4
        msr     elr_el3, x6
        eret
unexpected:
        mrs     x5, esr_el3
        mrs     x6, elr_el3
        stp     x5, x6, [x24, #C_ESR]
        mov     x0, #2
        b       leave

start:
        mov     x24, #CONTROL
        mov     x28, #0
        mov     x27, #0
        adr     x0, vectors
        msr     vbar_el3, x0
        isb

        id      0, midr_el1
        id      1, id_aa64pfr0_el1
        id      2, id_aa64pfr1_el1
        id      3, S3_0_C0_C4_2         // ID_AA64PFR2_EL1
        id      4, id_aa64isar0_el1
        id      5, id_aa64isar1_el1
        id      6, S3_0_C0_C6_2         // ID_AA64ISAR2_EL1
        id      7, id_aa64mmfr0_el1
        id      8, id_aa64mmfr1_el1
        id      9, id_aa64mmfr2_el1
        id      10, S3_0_C0_C7_3        // ID_AA64MMFR3_EL1
        id      11, S3_0_C0_C7_4        // ID_AA64MMFR4_EL1
        id      12, S3_0_C0_C4_4         // ID_AA64ZFR0_EL1
        id      13, id_aa64dfr0_el1

        optional probe
        probe   HAS_PAN, S3_0_C4_C2_3
        str     x27, [x24, #C_OPTIONAL]
        mov     x28, #2

        ldr     x23, [x24, #C_COUNT]
        ldr     x22, [x24, #C_NEXT]
        ldr     x20, [x24, #C_CASES]
        ldr     x21, [x24, #C_RESULTS]
        mov     x0, #CASE_SIZE
        madd    x20, x22, x0, x20
        add     x21, x21, x22, lsl #4

next:
        cmp     x22, x23
        b.hs    done
        str     x22, [x24, #C_NEXT]     // lets the host see which case QEMU died of

        always  write
        optional write_if
        isb
        ldr     x0, [x20, #FIRST_REGISTER]      // SCR_EL3
        tbnz    x0, #SCR_NS, flush_el2
        tbz     x0, #SCR_EEL2, flush_el1
        ldr     x1, [x20, #VSTCR]
        msr     S3_4_C2_C6_2, x1
        ldr     x1, [x20, #VSTTBR]
        msr     S3_4_C2_C6_0, x1
        isb
flush_el2:
        tlbi    alle2
flush_el1:
        tlbi    alle1
        dsb     sy
        isb

        tbz     x27, #HAS_PAN, 1f
        ldr     x0, [x20, #0x10]
        lsl     x0, x0, #PAN_BIT
        msr     S3_0_C4_C2_3, x0
1:
        ldp     x0, x2, [x20]           // the operation and the VA
        adr     x1, operations
        add     x1, x1, x0, lsl #3
        mov     x5, #0
        mov     x28, #1
        br      x1

        .macro  at_stub op
        at      \op, x2
        b       finished
        .endm
operations:
        at_stub s1e1r
        at_stub s1e1w
        at_stub s1e0r
        at_stub s1e0w
        at_stub s1e1rp
        at_stub s1e1wp
        at_stub s12e1r
        at_stub s12e1w
        at_stub s12e0r
        at_stub s12e0w
        at_stub s1e2r
        at_stub s1e2w

finished:
        isb
        mov     x28, #2
        mrs     x4, par_el1
        stp     x4, x5, [x21], #RESULT_SIZE
        add     x20, x20, #CASE_SIZE
        add     x22, x22, #1
        b       next

done:
        str     x22, [x24, #C_NEXT]
        mov     x0, #1
leave:
        str     x0, [x24, #C_STATE]
        dsb     sy
        mov     x0, #0x18               // semihosting SYS_EXIT
        adr     x1, exit_reason
        hlt     #0xf000
        b       .

        .balign 8
exit_reason:
        .quad   0x20026                 // ADP_Stopped_ApplicationExit
        .quad   0
