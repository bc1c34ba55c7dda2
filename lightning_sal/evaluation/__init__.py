"""From predictions to numbers: metrics, results on disk, tables, comparisons, ablations."""
