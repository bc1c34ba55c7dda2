"""The embedded default: procedural scenes, a small Qwen2.5-VL and a small EVF-SAM2 with their weights."""
