"""Conversations: messages checked, and turned into the ids that a model reads."""

from ptbr_slm.chat.encoder import EncodedChat
from ptbr_slm.chat.format import ChatFormat, is_tuned
from ptbr_slm.chat.messages import ROLES, Message, parse_messages

__all__ = ["ROLES", "ChatFormat", "EncodedChat", "Message", "is_tuned", "parse_messages"]
