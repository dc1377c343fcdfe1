"""What several kinds of tests share: a GDB to talk to, a QEMU to debug, and what to do without a tool."""
