"""Sets of tensors that belong together."""


class Groups:
    """Hold groups of tensor names, as a union-find structure.

    Examples
    --------
    >>> groups = Groups()
    >>> groups.join("conv1/out", "relu1/out")
    >>> groups.find("conv1/out") == groups.find("relu1/out")
    True
    >>> groups.find("conv1/out") == groups.find("conv2/out")
    False
    """

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Return the name that stands for the group of ``name``.

        An unknown name is a group of its own.

        Parameters
        ----------
        name : the name of a tensor.
        """
        parent = self._parent.setdefault(name, name)
        if parent == name:
            return name

        # Point straight at the root, so that the next look-up is short.
        root = self.find(parent)
        self._parent[name] = root
        return root

    def join(self, one: str, other: str) -> None:
        """Join the groups of two tensors.

        Parameters
        ----------
        one : the name of a tensor.
        other : the name of another; its group gives the name that stands for both.
        """
        self._parent[self.find(one)] = self.find(other)
