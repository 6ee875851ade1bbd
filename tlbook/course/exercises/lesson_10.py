"""Exercises of lesson 10."""

from tlbook.course.exercises import Exercise


def _hours(answer):
    got = answer(7_200_000, 1000.0, 250.0, 10)
    assert isinstance(got, tuple) and len(got) == 2, "Return two numbers: hours for features, hours for fine-tuning."
    features, tuning = got
    assert features != 20, "Frozen features are computed once, whatever the number of epochs."
    assert features != 7200, "That is seconds; an hour has 3,600."
    assert abs(features - 2) < 1e-9, f"Features: 7,200,000 images at 1,000 a second are 2 hours, not {features:g}."
    assert tuning != 8, "Fine-tuning passes over all images in every epoch."
    assert tuning != 20, "A step goes forward and backward: it has a rate of its own, and that is the lower one."
    assert abs(tuning - 80) < 1e-9, f"Fine-tuning: ten epochs at 250 images a second are 80 hours, not {tuning:g}."
    assert answer(10**9, 500.0, 100.0, 3)[1] > 8000, "It should work for any numbers."


_CLAIMS = {  # claim -> (verdict, why)
    "A": (
        "yes",
        "the interval of the paired difference leaves out 0, for these three seeds: others are no part of it",
    ),
    "B": ("undecided", "the interval of the difference includes 0: these panels do not tell the two apart"),
    "C": (
        "undecided",
        "lesson 04 switched the three things in which LP-FT differs from the full recipe. Only holding BatchNorm's "
        "statistics is decided, on average, and whether features are distorted was not measured in any arm",
    ),
    "D": ("no", "a random split answers another question; on panels that are new the same probe was measured at 0.87"),
}


def _claims(answer):
    assert isinstance(answer, dict), "Answer with a dictionary, {'A': 'yes', …}."
    assert set(answer) == set(_CLAIMS), f"Judge all of {', '.join(_CLAIMS)}; you judged {', '.join(map(str, answer))}."
    strange = [v for v in answer.values() if v not in ("yes", "no", "undecided")]
    assert not strange, f"{strange[0]!r} is none of 'yes', 'no', 'undecided'."
    for claim, (verdict, why) in _CLAIMS.items():
        assert answer[claim] == verdict, f"Think again about {claim}: {why}."


EXERCISES = {
    "10.1": Exercise(
        _hours,
        hint="Images divided by images a second are seconds. Which way sees an image once, which in every epoch?",
        solution="""
def answer(images, forward_rate, step_rate, epochs):
    return images / forward_rate / 3600, epochs * images / step_rate / 3600
""",
    ),
    "10.2": Exercise(
        _claims,
        hint="Is there a paired interval, does it include 0, and does the claim say more than the comparison?",
        solution="""
answer = {"A": "yes", "B": "undecided", "C": "undecided", "D": "no"}
""",
    ),
}
