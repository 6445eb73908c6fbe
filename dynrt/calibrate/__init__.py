"""Data sets, cached scores, thresholds and real evaluations. Its modules are imported one by one."""
