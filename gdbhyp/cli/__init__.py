"""The ``gdbhyp`` program: an adapter of the declared commands, and a launcher of GDB."""
