"""Other people's formats, read into notices and written from them."""
