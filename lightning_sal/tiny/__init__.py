"""The embedded default: procedural scenes, a small Qwen2.5-VL, EVF-SAM2 and SAM2 with their weights."""
