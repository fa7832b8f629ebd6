"""The one anatomy of all models: what a model can do and needs is data on its class.

A model is a subclass of ``SegmentationModel`` that sets this data, builds its layers, and computes
logits in ``compute``.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError


class SegmentationModel(nn.Module):
    """Map (N, 3, H, W) float32 images to (N, classes, H / k, W / k) logits.

    k is ``output_stride``, usually 1.

    Attributes
    ----------
    Set on the class:

    stride : H and W must be multiples of this.
    min_side : H and W are at least this.
    output_stride : the logits have the input's height and width divided by this.
    auxiliary_weight : weight of the auxiliary logits in the loss. None if the model has no
        auxiliary logits. Otherwise ``forward`` returns (logits, auxiliary logits) in training mode,
        and logits alone in evaluation mode.

    Set on the class for the default arguments, and by ``__init__`` on the instance if an argument
    of the model decides it:

    unpools : True if the model remembers the positions of maxima and puts values back there.
    pretrained : the torchvision model whose ImageNet weights fit ``encoder``. None if there is
        none, and then the model may have no ``encoder``.

    Layers, which ``__init__`` makes:

    encoder : the part whose weights come pretrained and that training can freeze.
    classifier : the last layer; its bias shifts the logits of the classes.

    Examples
    --------
    >>> class OneLayer(SegmentationModel):
    ...     stride = 8
    ...
    ...     def __init__(self, classes: int) -> None:
    ...         super().__init__()
    ...         self.classifier = nn.Conv2d(3, classes, 1)
    ...
    ...     def compute(self, x: Tensor) -> Tensor:
    ...         return self.classifier(x)
    >>> OneLayer(classes=11)(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 11, 64, 96])
    """

    stride: ClassVar[int] = 1
    min_side: ClassVar[int] = 1
    output_stride: ClassVar[int] = 1
    auxiliary_weight: ClassVar[float | None] = None
    unpools: bool = False
    pretrained: str | None = None

    encoder: nn.Module
    classifier: nn.Conv2d | nn.ConvTranspose2d

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits of images; in training mode, auxiliary logits too if there are any.

        Parameters
        ----------
        x : (N, 3, H, W) float32, normalised as the spec says.

        Returns
        -------
        (N, classes, H / k, W / k) logits, where k is ``output_stride``. In training mode
        (logits, auxiliary logits) if ``auxiliary_weight`` is not None; the auxiliary logits have
        the same shape.

        Raises
        ------
        InputError : H or W does not fit the model; the error names the size to use.
        """
        # The graphs of torch.compile and torch.export hold no check: sizes are checked once, where
        # they are given.
        if not torch.compiler.is_compiling():
            self.check_size(x.shape[-2], x.shape[-1])
        return self.compute(x)

    @abstractmethod  # for the type checker: nn.Module is no ABC, so Python does not enforce it
    def compute(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return what ``forward`` returns, for images of a size that fits."""

    @classmethod
    def check_size(cls, height: int, width: int) -> None:
        """Raise an error if the model cannot take images of a size.

        Parameters
        ----------
        height, width : size of the images, pixels.

        Raises
        ------
        InputError : a side is too small or no multiple of ``stride``; the error names the next
            larger size that fits.

        Examples
        --------
        >>> SegmentationModel.check_size(360, 480)
        """
        fits = (cls._next_side(height), cls._next_side(width))
        if fits != (height, width):
            needs = f"sides of at least {max(cls.min_side, cls.stride)} pixels"
            if cls.stride > 1:
                needs += f", divisible by {cls.stride}"
            raise InputError(
                f"{cls.__name__} needs {needs}",
                got=f"{height}x{width} (HxW)",
                expected=f"for example {fits[0]}x{fits[1]}",
            )

    @classmethod
    def _next_side(cls, side: int) -> int:
        """Return the smallest side that fits and is at least ``side``."""
        least = max(side, cls.min_side, 1)
        return -(-least // cls.stride) * cls.stride  # rounded up
