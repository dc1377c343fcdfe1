/* What the VMM tells its guest: one block of 64-bit words per vCPU, shared by vmm.c and guest.S. */

#ifndef RIG_GUEST_H
#define RIG_GUEST_H

/* Byte offsets into the block. */
#define P_MMU 0x00   /* 1: turn the guest's own stage 1 on; 0: stay with VA = IPA */
#define P_MAIR 0x08  /* MAIR_EL1, TCR_EL1, TTBR0_EL1 and TTBR1_EL1 for that */
#define P_TCR 0x10
#define P_TTBR0 0x18
#define P_TTBR1 0x20
#define P_CODE 0x28  /* where the copied code lies, as the running guest sees it (a VA, or with P_MMU = 0 an IPA) */
#define P_MMIO 0x30  /* the same for the addresses that the guest uses: no memory slot at all here… */
#define P_ROM 0x38   /* …a read-only slot… */
#define P_LOG 0x40   /* …a slot with dirty logging… */
#define P_HIGH 0x48  /* …a slot above 512 GiB… */
#define P_FRESH 0x50 /* …and memory that the VMM takes away again at each doorbell */
#define P_SPIN 0x58  /* turns of an idle loop in each round, so that a CPU is often found in the guest */
#define P_WFI 0x60   /* 1: end each round with WFI */
#define P_SELF 0x68  /* this block, likewise */
#define P_SIZE 0x80

/* Offsets into the MMIO page. */
#define MMIO_WRITE 0x004    /* +8 × (round % 64): the guest stores its round here, 4 bytes */
#define MMIO_READ 0x400     /* +8 × (round % 64): it loads from here, 8 bytes */
#define MMIO_PANIC 0xff0    /* it stores ESR_EL1 here when it takes an exception, which is a bug in this rig */
#define MMIO_DOORBELL 0xff8 /* it stores its round here: take the fresh memory away, restart dirty logging */

#define ROM_PAGES 16
#define LOG_PAGES 64
#define FRESH_STRIDE 0x10000 /* one touch a round; the doorbell rings when FRESH_TOUCHES are done */
#define FRESH_TOUCHES 4

#endif
