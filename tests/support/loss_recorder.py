"""A device module for timm's train.py and for our runner: writes every training loss to the file $LOSSES."""

import os
from typing import Any

from timm.task import ClassificationTask

_forward = ClassificationTask.forward


def _recorded(self: ClassificationTask, *args: Any) -> dict[str, Any]:
    result = _forward(self, *args)
    with open(os.environ['LOSSES'], 'a') as f:
        f.write(f'{result["loss"].item()!r}\n')
    return result


ClassificationTask.forward = _recorded  # type: ignore[method-assign]
