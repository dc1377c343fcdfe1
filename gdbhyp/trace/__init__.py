"""World switches: events from any source, the state machine that gives them worlds, statistics and export."""
