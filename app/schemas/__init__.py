"""Wire shapes, for documentation and for requests that are small: one file per router."""
