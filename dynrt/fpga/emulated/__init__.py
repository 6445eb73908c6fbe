"""A bench without hardware: the board in QEMU, meters on pseudo-terminals, and their faults."""
