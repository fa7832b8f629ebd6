"""Report how a run goes, and keep its history and curves up to date."""

import time

import lightning as L
from lightning.pytorch.callbacks import Callback

from edgeseg.reporter import Reporter
from edgeseg.training.history import Row, draw_curves
from edgeseg.training.segmenter import Segmenter


class Report(Callback):
    """Report the progress of each epoch, and one line per validation.

    The line holds step / total, learning rate, losses, scores, speed, time spent and time left.

    Parameters
    ----------
    reporter : receives both.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.started = time.perf_counter()
        self.first_step = 0
        self._speed = (0.0, 0.0)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Begin to measure the time."""
        self.started = time.perf_counter()
        self.first_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Report a finished batch."""
        total = int(trainer.num_training_batches)
        self.reporter.progress(f"epoch {trainer.current_epoch + 1}", batch_idx + 1, total)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Read the speed of training before validation takes time."""
        assert isinstance(module, Segmenter)
        self._speed = module.watch.read()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Report a validation that has just ended, and write the history and the curves."""
        assert isinstance(module, Segmenter)
        rows = module.history.rows
        if not trainer.is_global_zero or not rows or rows[-1]["step"] != trainer.global_step:
            return
        if trainer.global_step == self.first_step:
            return  # a resumed run begins with the last row of the run before

        self.reporter.info(self._line(rows[-1], trainer.global_step, module))
        module.history.write_csv(module.out / "history.csv")
        draw_curves(module.history, module.out / "curves.png")

    def _line(self, row: Row, step: int, module: Segmenter) -> str:
        """Return the line of a validation."""
        spent = time.perf_counter() - self.started
        left = spent / (step - self.first_step) * (module.steps - step)
        rate, waiting = self._speed
        parts = (
            f"step {step}/{module.steps}",
            f"epoch {row['epoch']}",
            f"lr {row['lr']:.2e}",
            f"loss {row['loss']:.4f}",
            f"val loss {row['val_loss']:.4f}",
            f"mIoU {row['miou']:.4f}",
            f"pixel accuracy {row['pixel_accuracy']:.4f}",
            f"best mIoU {module.best_miou:.4f}",
            f"{rate:.1f} frames/s ({100 * waiting:.0f} % waiting for data)",
            f"spent {clock(spent)}",
            f"left {clock(left)}",
        )
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds.

    Parameters
    ----------
    seconds : the time, s; fractions are dropped.

    Examples
    --------
    >>> clock(3723.9)
    '1:02:03'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
