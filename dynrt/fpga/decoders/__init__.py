"""Bytes of meters to samples: pure functions of the bytes, in arbitrary pieces."""
