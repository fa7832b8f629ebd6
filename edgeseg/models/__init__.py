"""The models: one file per architecture, and one registry that builds them by name.

Examples
--------
>>> from edgeseg.models import create
>>> model = create("enet", classes=11)
>>> type(model).__name__
'ENet'
"""

from edgeseg.models.registry import REGISTRY, Architecture, architecture, create, register

__all__ = ["REGISTRY", "Architecture", "architecture", "create", "register"]
