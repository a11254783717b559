"""Messages to the user's ILogger."""

from typing import Any


def say(trt: Any, logger: Any, severity: str, text: str) -> None:
    """Log one message as the library does."""
    logger.log(getattr(trt.ILogger.Severity, severity), text)
