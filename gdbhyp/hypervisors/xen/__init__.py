"""Xen in the memory of a machine: its symbols and its domains, without its ELF file."""
