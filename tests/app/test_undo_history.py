"""Undo and retry without a browser."""

from ptbr_slm.app.page import MAX_CHARACTERS, MAX_SNAPSHOTS, UndoHistory


def test_undo_brings_back_each_earlier_text_in_turn():
    history = UndoHistory().before_continuing("Era").before_continuing("Era uma")
    text, history = history.undone()
    assert (text, history.base) == ("Era uma", "Era")
    text, history = history.undone()
    assert (text, history.base) == ("Era", None)
    assert history.undone() == (None, history)


def test_undo_after_a_retry_returns_to_the_first_attempt():
    history = UndoHistory().before_continuing("Era")
    history = history.remember("Era uma vez")  # Tentar de novo: the box holds the first attempt
    text, history = history.undone()
    assert (text, history.base) == ("Era uma vez", "Era")


def test_an_action_that_changed_nothing_leaves_no_step_to_undo():
    history = UndoHistory().before_continuing("")
    assert history.settled("") == UndoHistory()
    assert history.settled("").settled("") == UndoHistory()


def test_what_a_visitor_can_make_the_server_keep_is_bounded():
    history = UndoHistory()
    for number in range(MAX_SNAPSHOTS * 2):
        history = history.remember(str(number))
    assert len(history.snapshots) == MAX_SNAPSHOTS
    assert history.remember("a" * (MAX_CHARACTERS + 1)) == history
    assert history.before_continuing("a" * (MAX_CHARACTERS + 1)).base is None
