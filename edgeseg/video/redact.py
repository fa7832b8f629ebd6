"""Take passwords out of addresses, before they are shown or stored."""

import re

HIDDEN = "***"

# `//user:password@`: the password may hold `@` and `/`, so everything up to the last `@` before a
# space, a quote, `?`, `#` or `!` goes.
_USER = re.compile(r"(?<=//)[^\s\"'?#!]*@")

# `?password=...`, `&token=...`, and the properties of GStreamer elements, such as `user-pw=...`.
_SECRET = re.compile(
    r"(?P<key>\b[\w-]*(?:pass(?:word|wd|phrase)?|pwd?|secret|token|auth|api-?key|user-id)\s*=\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s&\"'!]+)",
    re.IGNORECASE,
)


def redacted(address: str) -> str:
    r"""Return an address without its user and its secrets.

    Parameters
    ----------
    address : a path, an address or a GStreamer pipeline.

    Examples
    --------
    >>> redacted("rtsp://admin:p@ss/word@10.0.0.5/live?profile=1&password=x")
    'rtsp://10.0.0.5/live?profile=1&password=***'
    >>> redacted('rtspsrc location=rtsp://a:b@cam/1 user-id=a user-pw="b c" ! decodebin ! appsink')
    'rtspsrc location=rtsp://cam/1 user-id=*** user-pw=*** ! decodebin ! appsink'
    >>> redacted("clips/drive.mp4")
    'clips/drive.mp4'
    """
    without_user = _USER.sub("", address)
    return _SECRET.sub(rf"\g<key>{HIDDEN}", without_user)
