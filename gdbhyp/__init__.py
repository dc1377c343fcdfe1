"""gdbhyp makes GDB understand AArch64 hypervisors."""

__version__ = "0.1.0"
