"""Speaks to Troupe over its message bus, without HTTP. client.Client is what most programs need."""

from .client import Answer, Client
from .errors import BusError

__all__ = ["Answer", "BusError", "Client"]
