"""What a run says while it goes, and the pictures it keeps up to date."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from edgeseg.training.history import draw_curves
from edgeseg.training.segmenter import Segmenter


class Report(Callback):
    """The log line of each validation: step / total, rate, losses, scores, speed, time spent, time left."""

    def __init__(self, say: Any) -> None:
        self.say, self.started, self.first_step = say, time.perf_counter(), 0
        self._speed = (0.0, 0.0)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.started, self.first_step = time.perf_counter(), trainer.global_step

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Segmenter)
        self._speed = module.watch.read()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Segmenter)
        rows = module.history.rows
        if not trainer.is_global_zero or not rows or rows[-1]["step"] != trainer.global_step:
            return
        spent = time.perf_counter() - self.started
        done = trainer.global_step - self.first_step
        if not done:  # the last line of the run before, met again on resuming
            return
        left = spent / done * (module.steps - trainer.global_step)
        row, (rate, waiting) = rows[-1], self._speed
        self.say(
            f"step {trainer.global_step}/{module.steps}  epoch {row['epoch']}  lr {row['lr']:.2e}  "
            f"loss {row['loss']:.4f}  val loss {row['val_loss']:.4f}  mIoU {row['miou']:.4f}  "
            f"pixel accuracy {row['pixel_accuracy']:.4f}  best mIoU {module.best_miou:.4f}  "
            f"{rate:.1f} frames/s ({100 * waiting:.0f} % waiting for data)  spent {clock(spent)}  left {clock(left)}"
        )
        module.history.write_csv(module.out / "history.csv")
        draw_curves(module.history, module.out / "curves.png")


def clock(seconds: float) -> str:
    """Hours, minutes, seconds: ``1:02:03``."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
