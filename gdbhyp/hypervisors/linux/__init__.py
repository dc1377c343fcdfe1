"""A Linux kernel in the memory of a machine: its symbols, its types, and KVM's objects, without its vmlinux."""
