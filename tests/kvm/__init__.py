"""A real KVM host under QEMU: what gdbhyp says is compared with what our VMM and QEMU say."""
