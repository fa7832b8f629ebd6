"""The live page: every viewer arranges the picture for himself in a browser.

``PageSink`` is a sink of ``segment``. It needs the extra ``web``: ``pip install 'edgeseg[web]'``;
importing this package does not.

Examples
--------
>>> from edgeseg.spec import CAMVID_11
>>> from edgeseg.video.page import PageSink
>>> with PageSink(CAMVID_11, port=0) as page:
...     page.url.startswith("http://127.0.0.1:")
True
"""

from edgeseg.video.page.access import new_token
from edgeseg.video.page.sink import PageSink

__all__ = ["PageSink", "new_token"]
