"""gdbhyp inside GDB: the only room that imports ``gdb`` or knows QEMU's gdbstub."""
