"""Energy: access counts of an accelerator, priced by a table, per node, path and exit."""
