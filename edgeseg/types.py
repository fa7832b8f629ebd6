"""Arrays by what they hold. Shapes are said where they are used."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # a frame (H, W, 3) BGR, or a label map (H, W)
Float = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
