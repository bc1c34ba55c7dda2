"""Reading what others wrote without trusting it, and writing whole files."""
