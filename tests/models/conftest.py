"""The small model for these tests."""

from tests.small_model import model, session_model

__all__ = ["model", "session_model"]
