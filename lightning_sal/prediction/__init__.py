"""Answering image groups without a Trainer, and what is written of an answer: files, pages, a folder that grows."""
