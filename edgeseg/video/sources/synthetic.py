"""Open synthetic drives as sources."""

from collections.abc import Iterator

from edgeseg.video.frames import Frame, Source, VideoInfo


def open_synthetic(uri: str) -> Source:
    """Open a synthetic drive."""
    from edgeseg.data.synthetic import parse_address

    drive = parse_address(uri)
    height, width = drive.size

    def frames() -> Iterator[Frame]:
        for index in range(len(drive)):
            sample = drive.frame(index)
            yield Frame(index, sample.image, sample.name, index / drive.fps)

    info = VideoInfo(width, height, fps=drive.fps, frames=len(drive), live=False)
    return Source(info, frames())
