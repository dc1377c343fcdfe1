"""What is only true of one hypervisor: Linux with KVM or pKVM, Xen."""
