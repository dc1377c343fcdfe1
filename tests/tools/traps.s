// Takes as many kinds of exceptions as QEMU's CPU can, from EL1 and EL0, so that `-d int` shows their syndromes.
//
// EL2 starts each phase, which ends with hvc #0x7ff. Both vectors step over the instruction that trapped.

	.arch armv8.6-a+sve
	.equ	HCR_RW, 1 << 31
	.equ	HCR_TRAPS, 0x6ed6000		// TVM TTLB TPCP TSW TACR TSC TID3 TID1 TWE TWI

	.macro	set, register, value
	ldr	x9, =\value
	msr	\register, x9
	.endm

	.macro	phase, hcr, spsr, entry
	ldr	x9, =\hcr
	msr	hcr_el2, x9
	ldr	x9, =\spsr
	msr	spsr_el2, x9
	adr	x9, \entry
	msr	elr_el2, x9
	isb
	adr	x28, 9f
	eret
9:
	.endm

	.globl	_start
_start:
	adr	x9, vectors_el2
	msr	vbar_el2, x9
	adr	x9, vectors_el1
	msr	vbar_el1, x9
	adr	x9, stack_top
	mov	sp, x9
	msr	sp_el1, x9
	set	cpacr_el1, 0x3330000
	set	sctlr_el1, 0xf8d00800		// with pointer authentication
	set	cptr_el2, 0x33ff
	set	mdcr_el2, 0
	phase	HCR_RW | HCR_TRAPS, 0x3c5, traps
	set	cptr_el2, 0x23ff
	phase	HCR_RW | (1 << 40) | (1 << 41), 0x3c5, vectors
	set	cptr_el2, 0x32ff
	phase	HCR_RW | (1 << 40) | (1 << 41), 0x3c5, streaming
	set	cptr_el2, 0x37ff
	phase	HCR_RW, 0x3c5, floating_point
	set	cptr_el2, 0x32ff
	bl	make_stage_2
	phase	HCR_RW | 1, 0x3c5, aborts
	phase	HCR_RW | 1, 0x3c5, walk_abort
	set	mdcr_el2, (1 << 8) | (1 << 9) | (1 << 10) | (1 << 11)
	phase	HCR_RW, 0x1c5, debug
	set	mdcr_el2, 0
	phase	HCR_RW, 0x3c5, own_exceptions
	phase	HCR_RW | (1 << 27), 0x3c0, user_of_host
	set	mdcr_el2, (1 << 8) | (1 << 9) | (1 << 10) | (1 << 11)
	set	cptr_el2, 0x32ff
	set	sctlr_el1, 0xc50838
	adr	x9, vectors_aarch32
	msr	vbar_el1, x9
	phase	HCR_TRAPS | (1 << 30), 0x1d3, aarch32
	wfi
	b	.

traps:
	wfi
	wfe
	mrs	x3, id_aa64pfr0_el1
	mrs	x4, midr_el1
	mrs	x30, revidr_el1
	msr	ttbr0_el1, x7
	msr	sctlr_el1, xzr
	mrs	x2, actlr_el1
	tlbi	vmalle1
	tlbi	vae1is, x6
	dc	isw, x8
	adr	x8, stack
	dc	civac, x8
	smc	#0
	smc	#0x123
	hvc	#0
	hvc	#0xea1
	hvc	#0xffff
	pacia	x0, x1
	mrs	x0, apiakeylo_el1
	udf	#0
	hvc	#0x7ff

vectors:
	ptrue	p0.b
	mrs	x0, zcr_el1
	hvc	#0x7ff

streaming:
	.inst	0xd503477f		// smstart
	hvc	#0x7ff

floating_point:
	fadd	d0, d1, d2
	mrs	x0, fpcr
	hvc	#0x7ff

aborts:
	ldr	x0, =0x9000004
	str	w5, [x0]
	str	x5, [x0]
	strb	w7, [x0]
	ldrsh	x3, [x0]
	ldr	wzr, [x0]
	ldar	w9, [x0]
	ldp	x1, x2, [x0]
	ldr	x3, [x0], #8
	dc	civac, x0
	at	s1e1r, x0
	ldr	x1, =0x80000000
	str	w5, [x1]		// stage 2 has it read-only
	ldr	w5, [x1]
	adr	x30, 1f
	ldr	x1, =0x9000000
	br	x1
1:	hvc	#0x7ff

walk_abort:
	ldr	x0, =0x9000000
	msr	ttbr0_el1, x0
	ldr	x0, =0x3519		// T0SZ 25, 4 KiB, cached walks
	msr	tcr_el1, x0
	isb
	mrs	x0, sctlr_el1
	orr	x0, x0, #1
	msr	sctlr_el1, x0		// the next fetch walks a table that stage 2 does not map
	isb
	hvc	#0x7ff

debug:
	brk	#7
	brk	#0x800
	mrs	x0, mdscr_el1
	msr	oslar_el1, xzr
	mrs	x0, mdrar_el1
	hvc	#1			// EL2 arms a breakpoint and a watchpoint
	nop
watched_code:
	nop
	adr	x0, watched_data
	str	w0, [x0]
	hvc	#2			// EL2 arms a single step
	nop
	hvc	#0x7ff

own_exceptions:
	svc	#5
	brk	#9
	udf	#1
	adr	x0, own_exceptions
	add	x0, x0, #2
	adr	x30, 1f
	br	x0			// PC alignment
1:	mrs	x0, sctlr_el1
	orr	x0, x0, #2
	msr	sctlr_el1, x0
	isb
	adr	x0, watched_data
	add	x0, x0, #1
	ldr	w1, [x0]		// alignment
	ldr	x0, =0x500000000000
	ldr	w1, [x0]		// address size
	str	w1, [x0]
	adr	x0, 2f
	msr	elr_el1, x0
	mov	x0, #0x3cf		// no such mode: an illegal return
	msr	spsr_el1, x0
	eret
2:	nop
	hvc	#0x7ff

user_of_host:
	svc	#3
	brk	#3
	mrs	x0, midr_el1
	ldr	x0, =0x500000000000
	ldr	w1, [x0]
	svc	#0x7ff

	.arch	armv8-a
aarch32:
	.inst	0xe320f003		// wfi
	.inst	0x1320f002		// wfene
	.inst	0xee104f10		// mrc p15, 0, r4, c0, c0, 0
	.inst	0xee014f10		// mcr p15, 0, r4, c1, c0, 0
	.inst	0xeef76a10		// vmrs r6, mvfr0
	.inst	0xee105e11		// mrc p14, 0, r5, c0, c1, 0
	.inst	0xec532e01		// mrrc p14, 0, r2, r3, c1
	.inst	0xec510f02		// mrrc p15, 0, r0, r1, c2
	.inst	0xec410f02		// mcrr p15, 0, r0, r1, c2
	.inst	0xecb05e01		// ldc p14, c5, [r0], #4
	.inst	0xee10cf30		// mrc p15, 0, ip, c0, c0, 1
	.inst	0xe1600070		// smc #0
	.inst	0xe1400070		// hvc #0
	.inst	0xe1200071		// bkpt #1
	.inst	0xef000005		// svc #5
	.inst	0xe1407f7f		// hvc #0x7ff

make_stage_2:
	// Two gigabytes of RAM as 1 GiB blocks at 0x40000000; nothing below.
	adr	x9, stage_2
	ldr	x10, =0x400007fd
	str	x10, [x9, #8]
	ldr	x10, =0x8000077d	// S2AP: read only
	str	x10, [x9, #16]
	msr	vttbr_el2, x9
	set	vtcr_el2, 0x80023559	// 39-bit IPA, level 1
	isb
	ret

	.ltorg

	.balign	2048
vectors_el2:
	.rept	16
	.balign	128
	b	from_below
	.endr

from_below:
	mrs	x20, esr_el2
	lsr	x21, x20, #26
	mrs	x22, elr_el2
	and	x23, x20, #0xffff
	cmp	x23, #0x7ff
	b.ne	1f
	cmp	x21, #0x16
	b.eq	end_of_phase
	cmp	x21, #0x15
	b.eq	end_of_phase
	cmp	x21, #0x12
	b.eq	end_of_phase
1:	cmp	x21, #0x16
	b.eq	call
	cmp	x21, #0x15
	b.eq	return
	cmp	x21, #0x12
	b.eq	return
	cmp	x21, #0x20
	b.eq	fetch_failed
	cmp	x21, #0x30
	b.eq	breakpoint
	cmp	x21, #0x34
	b.eq	watchpoint
	cmp	x21, #0x32
	b.eq	step
	add	x22, x22, #4
return:
	msr	elr_el2, x22
	eret

end_of_phase:
	br	x28

fetch_failed:
	mov	x22, x30
	tbz	x20, #7, return
	mrs	x23, sctlr_el1
	bic	x23, x23, #1
	msr	sctlr_el1, x23
	mrs	x22, elr_el2
	b	return

call:
	cmp	x23, #1
	b.eq	arm
	cmp	x23, #2
	b.ne	return
	set	mdscr_el1, (1 << 15) | (1 << 13) | 1
	mrs	x23, spsr_el2
	orr	x23, x23, #1 << 21
	msr	spsr_el2, x23
	isb
	b	return

arm:
	msr	oslar_el1, xzr
	adr	x23, watched_code
	msr	dbgbvr0_el1, x23
	set	dbgbcr0_el1, 0x1e7
	adr	x23, watched_data
	and	x23, x23, #~7
	msr	dbgwvr0_el1, x23
	set	dbgwcr0_el1, 0x1fff
	set	mdscr_el1, (1 << 15) | (1 << 13)
	isb
	b	return

breakpoint:
	msr	dbgbcr0_el1, xzr
	b	return
watchpoint:
	msr	dbgwcr0_el1, xzr
	b	return
step:
	msr	mdscr_el1, xzr
	mrs	x23, spsr_el2
	bic	x23, x23, #1 << 21
	msr	spsr_el2, x23
	b	return

	.balign	2048
vectors_el1:
	.rept	16
	.balign	128
	b	own
	.endr

own:
	mrs	x20, esr_el1
	lsr	x21, x20, #26
	mrs	x22, elr_el1
	cmp	x21, #0x15
	b.eq	2f
	cmp	x21, #0x2f
	b.eq	3f
	cmp	x21, #0x22
	b.eq	4f
	cmp	x21, #0x0e
	b.eq	5f
	add	x22, x22, #4
2:	msr	elr_el1, x22
	eret
3:	hvc	#0x7ff
4:	mov	x22, x30
	b	2b
5:	mrs	x23, spsr_el1
	bic	x23, x23, #1 << 20
	msr	spsr_el1, x23
	b	2b

	.balign	2048
vectors_aarch32:
	.rept	8
	.inst	0xe1b0f00e		// movs pc, lr
	.endr

	.balign	4096
stage_2:
	.skip	4096
stack:
	.skip	4096
stack_top:
watched_data:
	.skip	16
