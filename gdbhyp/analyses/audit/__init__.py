"""What breaks isolation on a machine: rules over all its translation tables and registers."""
