"""What metrics compute from counted pixels: written once, for numpy arrays and for tensors on any device.

Pixels are counted where they are: by `lightning_sal.metrics.functional` in tensors, by `lightning_sal.maps` in files. What
follows from the counts is the same arithmetic in float64, here, by the functions that the array API standard
(https://data-apis.org/array-api) has for both. What needs scipy, such as regions and borders, is computed here too, of one
image as numpy arrays. Nothing here waits for torch.
"""
