"""Exercises: right answers beside the solution, and misconceptions with words of what each is told."""

CLAIMS = {"A": "yes", "B": "undecided", "C": "undecided", "D": "no"}

RIGHT = {"10.1": [lambda n, f, s, e: (n / (3600 * f), n * e / (3600 * s))], "10.2": [CLAIMS]}
WRONG = {  # misconception -> (exercise, answer, words of its message)
    "features every epoch": ("10.1", lambda n, f, s, e: (e * n / f / 3600, e * n / s / 3600), "computed once"),
    "seconds": ("10.1", lambda n, f, s, e: (n / f, e * n / s), "an hour has"),
    "one epoch": ("10.1", lambda n, f, s, e: (n / f / 3600, n / s / 3600), "in every epoch"),
    "the forward rate": ("10.1", lambda n, f, s, e: (n / f / 3600, e * n / f / 3600), "forward and backward"),
    "one number": ("10.1", lambda n, f, s, e: n / f / 3600, "two numbers"),
    "level is ahead": ("10.2", CLAIMS | {"B": "yes"}, "includes 0"),
    "a cause": ("10.2", CLAIMS | {"C": "yes"}, "Only holding BatchNorm's statistics is decided"),
    "ruled out": ("10.2", CLAIMS | {"C": "no"}, "was not measured in any arm"),
    "the wrong split": ("10.2", CLAIMS | {"D": "yes"}, "another question"),
    "left out": ("10.2", {"A": "yes"}, "Judge all"),
    "another word": ("10.2", CLAIMS | {"A": "maybe"}, "none of"),
}
