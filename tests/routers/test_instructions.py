"""The writer without a language model."""

from routers.instructions import Instruction, stand_in, template
from routers.types import Query


def test_choices_are_named_up_to_a_limit():
    assert template(Query("x", choices=("a", "b"))).text == 'Choose for the input one of: "a", "b".'
    many = template(Query("x", choices=tuple("abcdefgh"))).text
    assert many == 'Choose for the input one of: "a", "b", "c", "d", "e" and 3 more.'


def test_the_input_is_never_part_of_it():
    secret = "a secret of the caller"
    assert secret not in template(Query(secret)).text
    assert secret not in template(Query(secret, choices=("a", "b"))).text


def test_a_note_says_why_it_took_over():
    assert template(Query("x"), "timeout").note == "timeout"
    assert template(Query("x")).note is None


def test_only_a_sentence_that_adds_something_is_embedded():
    assert template(Query("x", choices=("a", "b"))).sentence == ""
    assert Instruction("Find the mood.", "caller").sentence == "Find the mood."
    assert Instruction("Find the mood.", "openai").sentence == "Find the mood."


def test_the_one_sentence_is_the_best_there_is_to_say():
    both, alone = Query("the input", choices=("a", "b")), Query("the input")
    written = Instruction("Find the mood.", "caller")
    assert stand_in(both, written) == stand_in(alone, written) == "Find the mood."
    assert stand_in(both, template(both)) == 'Choose for the input one of: "a", "b".'
    assert stand_in(alone, template(alone)) == "the input"
