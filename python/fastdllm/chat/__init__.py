"""A conversation that keeps its messages, and its display on a terminal (`view`)."""

from __future__ import annotations

from fastdllm.chat.conversation import ROLES, Conversation, TurnStats, tokens_per_forward

__all__ = ["ROLES", "Conversation", "TurnStats", "tokens_per_forward"]
