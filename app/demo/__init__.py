"""A whole federation on one machine, for a first look and for tests. Its keys, offices and terms are its own inventions."""
