"""Entry → rows: what the logs say, arranged for reading. Everything here can be dropped and folded again."""
