"""What watches a training run, guards it and writes its folder."""

from lit_llm.callbacks.checkpointing import Checkpoint
from lit_llm.callbacks.csv_log import CSVLog
from lit_llm.callbacks.nan_guard import NanGuard, NotFinite
from lit_llm.callbacks.progress import Progress
from lit_llm.callbacks.run_report import RunReport, write_report
from lit_llm.callbacks.samples import Samples
from lit_llm.callbacks.signals import Signals, Stopped
from lit_llm.callbacks.spike_guard import SpikeGuard
from lit_llm.callbacks.tensorboard_log import TensorBoardLog
from lit_llm.callbacks.throughput import Throughput
from lit_llm.callbacks.watchdog import Watchdog

__all__ = [
    "CSVLog",
    "Checkpoint",
    "NanGuard",
    "NotFinite",
    "Progress",
    "RunReport",
    "Samples",
    "Signals",
    "SpikeGuard",
    "Stopped",
    "TensorBoardLog",
    "Throughput",
    "Watchdog",
    "write_report",
]
