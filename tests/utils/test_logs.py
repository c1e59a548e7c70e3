import logging

from crosstask.utils.logs import warn_once

logger = logging.getLogger(__name__)


def test_a_warning_is_logged_once(caplog):
    for message in ("rows.csv: a", "rows.csv: a", "rows.csv: b"):
        warn_once(logger, message)
    assert caplog.messages == ["rows.csv: a", "rows.csv: b"]
