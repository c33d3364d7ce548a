"""The smallest working greensv plugin: one backbone, and a line in the log after every trial.

This module is imported to list what is installed, so it must be quick: torch waits in `network`.
"""

import logging
from collections.abc import Iterable
from typing import Any

from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv_template.backbone import MeanPooling

logger = logging.getLogger(__name__)


@hookimpl
def greensv_backbones() -> Iterable[Backbone]:
    """Provides `mean-pooling`."""
    return [MeanPooling()]


@hookimpl
def greensv_trial_finished(study_name: str, trial: dict[str, Any]) -> None:
    """Logs the trial; `greensv -v search` shows it."""
    logger.info("study %s: trial %s finished: %s", study_name, trial.get("number"), trial)
