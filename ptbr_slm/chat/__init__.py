"""Conversations: messages checked, and turned into the ids that a model reads."""

from ptbr_slm.chat.encoder import EncodedChat
from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.chat.messages import ROLES, Message, parse_messages
from ptbr_slm.chat.tuned import is_tuned, tuned_companions, tuned_config, tuning_format

__all__ = [
    "ROLES",
    "ChatFormat",
    "EncodedChat",
    "Message",
    "is_tuned",
    "parse_messages",
    "tuned_companions",
    "tuned_config",
    "tuning_format",
]
