"""Show a labelled camera on a web page, and record it.

    python examples/camera_page.py 0
    python examples/camera_page.py "synthetic://?realtime=1" --frames 100 --out drive.mp4

Needs the extra web: pip install 'edgeseg[web]'.
"""

import argparse

import edgeseg
from edgeseg.video import PageSink, Sink, VideoSink, View


def main() -> None:
    """Run until the source ends or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--engine", default="enet-camvid")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--frames", type=int, help="stop after this number of frames")
    parser.add_argument("--out", help="a video to write, such as out.mp4")
    options = parser.parse_args()

    with edgeseg.load_engine(options.engine) as engine:
        source = edgeseg.open_source(options.source)
        page = PageSink(engine.spec.labels, port=options.port)
        sinks: list[Sink] = [page]
        if options.out:
            sinks.append(VideoSink(options.out, source.info))

        print(f"look at {page.url}", flush=True)
        view = View(mode="overlay", alpha=0.4)
        summary = edgeseg.segment(engine, source, sinks, view=view, max_frames=options.frames)
    print(f"{summary.frames_out} frames, ended by: {summary.stopped}")


if __name__ == "__main__":
    main()
