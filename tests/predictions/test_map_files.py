"""Maps from files of any mode."""

import numpy as np
import torch
from PIL import Image

from lightning_sal.predictions.map_files import MapFile


def test_maps_are_read_by_the_range_of_their_mode(save):
    dark = np.array([[0, 1], [1, 0]], np.uint8)  # 8 bits, however dark
    assert MapFile(save("dark.png", dark))((2, 2))[0][0].tolist() == [[0, 1 / 255], [1 / 255, 0]]
    assert MapFile(save("bits.png", Image.fromarray(dark.astype(bool))))((2, 2))[0][0].tolist() == [[0, 1], [1, 0]]
    deep = np.array([[0, 65535], [13107, 0]], np.uint16)
    assert MapFile(save("deep.png", deep))((2, 2))[0][0].tolist() == [[0, 1], [0.2, 0]]
    wide = MapFile(save("colour.png", np.full((2, 2, 3), 51, np.uint8)))((4, 6))[0][0]
    torch.testing.assert_close(wide, torch.full((4, 6), 0.2, dtype=torch.float64))
