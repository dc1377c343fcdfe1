"""The oracle: what QEMU's own AT instructions leave in PAR_EL1, over random structured page tables."""
