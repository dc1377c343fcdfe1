"""Commands, declared once for GDB and the command line."""
