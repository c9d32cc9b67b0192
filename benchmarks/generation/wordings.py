"""What a caller says who wants a task done: short and plain, where `Task.instructions` are formal.

The library of writers is described and calibrated by both. The last of a task's describes nothing:
calibration asks with it. `Task.unseen` and `NEW` are for measuring, and stand nowhere else.
"""

from __future__ import annotations

SAID: dict[str, tuple[str, ...]] = {
    "reverse-word": (
        "Spell it backwards.",
        "Reverse this word.",
        "What is this word the other way round?",
        "Flip the letters around.",
        "Write it from back to front.",
    ),
    "upper-case": (
        "Write it in capitals.",
        "Convert to uppercase.",
        "Turn every letter into a big one.",
        "Shout this word.",
        "I want this in upper case.",
    ),
    "sort-letters": (
        "Put the letters in order.",
        "Arrange it from a to z.",
        "Order the characters of this word by the alphabet.",
        "Which letters does it have, beginning with the first of the alphabet?",
        "Bring its letters into ABC order.",
    ),
    "count-vowels": (
        "Count the vowels.",
        "What is the number of vowels in this word?",
        "Tell me how often a, e, i, o or u occurs.",
        "I need the vowel count.",
        "Of its letters, how many are no consonants?",
    ),
    "make-plural": (
        "What is the plural?",
        "Make it plural.",
        "Say it for more than one.",
        "Add the right plural ending.",
        "Name several of them.",
    ),
    "shift-letters": (
        "Apply a Caesar cipher.",
        "Shift every letter by one.",
        "Encrypt this word.",
        "Write the letter that comes after each letter.",
        "Make it a secret message by moving along the alphabet.",
    ),
    "acronym": (
        "What is the acronym?",
        "Shorten this to its first letters.",
        "Give me the abbreviation.",
        "Take the first letter of each word.",
        "Write down the initials.",
    ),
    "swap-words": (
        "Swap the first and last word.",
        "Switch the outer two words.",
        "Change places of word one and word three.",
        "Put the last word first and the first word last.",
        "Exchange the ends of this phrase.",
    ),
    "add-numbers": (
        "Add these up.",
        "What is the sum?",
        "Calculate this.",
        "Do the maths.",
        "What is the total?",
    ),
    "date-to-long": (
        "Write this date out in words.",
        "How would I write this date in a letter?",
        "Give the date with the name of the month.",
        "Make this date readable.",
        "What day, month and year is that?",
    ),
    "date-to-iso": (
        "Convert this date to ISO.",
        "Write the date in digits only.",
        "Turn it into a numeric date, year first.",
        "Make this date sortable.",
        "What is this date in machine-readable form?",
    ),
    "extract-email": (
        "What is the e-mail address?",
        "Find the email.",
        "Which address do I send mail to?",
        "Pull out the part with the @.",
        "Get the contact address of this customer.",
    ),
}

NEW: dict[str, str] = {
    "reverse-word": "Read me this one from right to left.",
    "upper-case": "I need that in block letters.",
    "sort-letters": "Rearrange what it is spelled with by alphabet.",
    "count-vowels": "Say how many a e i o u it has.",
    "make-plural": "If there were lots of them, how would you spell it?",
    "shift-letters": "Swap each letter for its successor.",
    "acronym": "Abbreviate to the starting letters.",
    "swap-words": "Interchange the words at both ends.",
    "add-numbers": "Work out the result.",
    "date-to-long": "Put the date the way people say it.",
    "date-to-iso": "Reformat the day as numbers with dashes.",
    "extract-email": "Copy the mail address out of this.",
}
"""Written before anything was measured, and used by nothing but measurements."""

TRIED: dict[str, str] = {
    "reverse-word": "melon",
    "upper-case": "melon",
    "sort-letters": "melon",
    "count-vowels": "banana",
    "make-plural": "box",
    "shift-letters": "melon",
    "acronym": "lemon garden tulip",
    "swap-words": "lid pen mug",
    "add-numbers": "417 + 5",
    "date-to-long": "2024-03-07",
    "date-to-iso": "7 March 2024",
    "extract-email": "29.95, mona@kit.ne, Mona Kit",
}
"""An input for each task that people may try its expert with, of the form that its inputs have."""
