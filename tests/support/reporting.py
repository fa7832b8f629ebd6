"""A reporter that keeps what it receives."""

from collections.abc import Callable


class Heard:
    """Keep messages in ``lines`` (warnings with "warning: " in front) and progress in ``steps``.

    Parameters
    ----------
    lines : the list to append messages to; a new one unless given.
    on_progress : called with (task, done, total) as well.
    """

    def __init__(
        self,
        lines: list[str] | None = None,
        on_progress: Callable[[str, int, int | None], object] | None = None,
    ) -> None:
        self.lines = [] if lines is None else lines
        self.steps: list[tuple[str, int, int | None]] = []
        self._on_progress = on_progress

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def progress(self, task: str, done: int, total: int | None) -> None:
        self.steps.append((task, done, total))
        if self._on_progress is not None:
            self._on_progress(task, done, total)
