"""The error of an action that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ptbr_slm.errors import SlmError


def refusal(action: Callable[..., Any], *arguments: Any, **keywords: Any) -> SlmError:
    """What the action raises: an error for the user, that says what to do."""
    with pytest.raises(SlmError) as caught:
        action(*arguments, **keywords)
    assert caught.value.code != "E_INTERNAL" and caught.value.hint, caught.value
    return caught.value
