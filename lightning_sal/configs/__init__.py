"""Config files and what the command line makes of them."""
