"""A device module for timm's train.py and for our runner: writes to the file $STEPS when each training step begins.

The run ends before step $LAST_STEP.
"""

import os
import time
from typing import Any

from timm.task import ClassificationTask

_forward = ClassificationTask.forward
_left = int(os.environ['LAST_STEP'])


def _timed(self: ClassificationTask, *args: Any) -> dict[str, Any]:
    global _left
    _left -= 1
    with open(os.environ['STEPS'], 'a') as f:
        f.write(f'{time.perf_counter()!r} {time.process_time()!r}\n')
    if _left <= 0:
        raise SystemExit(0)
    return _forward(self, *args)


ClassificationTask.forward = _timed  # type: ignore[assignment, method-assign]
