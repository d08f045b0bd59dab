"""SRVGGNetCompact, which enlarges frames."""

from typing import TYPE_CHECKING

from opensora.lazy import lazy

if TYPE_CHECKING:
    from opensora.models.srvgg.model import SRVGG

__all__ = ["SRVGG"]

__getattr__ = lazy(__name__, {"SRVGG": "model"})
