"""The pure core: bytes and values in, values or errors out. No I/O, no clock, no environment."""
