"""The web page of `lightning-sal demo`: photographs in, reasoning and masks out."""
