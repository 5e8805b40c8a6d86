"""The verifiable log.

`merkle`, `note`, `checkpoint`, `cosignature`, `tiles`, `proof` and `witness` are pure: bytes and values in, values or
errors out. The modules beside them that touch the database build on these and nothing here knows of them.
"""
