"""Saliency maps as files hold them: levels, counted once an image, from which any convention's measures follow.

No torch: scoring the maps of a method takes little more than reading them.
"""
