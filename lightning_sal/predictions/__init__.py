"""What any method predicted, as files: maps, masks, instances, boxes; found, read, and paired with ground truths by name."""
