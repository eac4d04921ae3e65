"""The commands an administrator runs; each file without an ending is one of them."""
