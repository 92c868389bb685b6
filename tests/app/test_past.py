"""Undo and retry without a browser."""

from ptbr_slm.app.past import MAX_CHARACTERS, MAX_SNAPSHOTS, Past


def test_undo_brings_back_each_earlier_text_in_turn():
    past = Past().before_continuing("Era").before_continuing("Era uma")
    text, past = past.undone()
    assert (text, past.base) == ("Era uma", "Era")
    text, past = past.undone()
    assert (text, past.base) == ("Era", None)
    assert past.undone() == (None, past)


def test_undo_after_a_retry_returns_to_the_first_attempt():
    past = Past().before_continuing("Era")
    past = past.remember("Era uma vez")  # Tentar de novo: the box holds the first attempt
    text, past = past.undone()
    assert (text, past.base) == ("Era uma vez", "Era")


def test_an_action_that_changed_nothing_leaves_no_step_to_undo():
    past = Past().before_continuing("")
    assert past.settled("") == Past()
    assert past.settled("").settled("") == Past()


def test_what_a_visitor_can_make_the_server_keep_is_bounded():
    past = Past()
    for number in range(MAX_SNAPSHOTS * 2):
        past = past.remember(str(number))
    assert len(past.snapshots) == MAX_SNAPSHOTS
    assert past.remember("a" * (MAX_CHARACTERS + 1)) == past
    assert past.before_continuing("a" * (MAX_CHARACTERS + 1)).base is None
