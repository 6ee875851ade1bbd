"""The eight exercises of the appendix on the bug hunt: a name and evidence for each of the runs A to H."""

from tlbook.course import bug_hunt
from tlbook.course.exercises import Exercise

# Why a run that did something else is not guilty of this
_CLEARED = {
    "moving statistics": "every mean and variance of its BatchNorm layers is the one that it started with",
    "wrong preparation": "with that other mean and std its reported probabilities do not come out again",
    "torn panel": "no panel stands on two sides of its split",
    "forgotten head": "its optimizer holds the head, and the head has moved",
    "chosen on the test": "the epoch that it kept has the lowest validation loss",
    "swapped classes": "on its own training cells its scores are not far below chance",
    "train mode": "in training mode its reported probabilities do not come out again",
    "stale features": "computed anew with its own weights, its stored features come out the same",
}
_HINTS = {
    "moving statistics": "Whose name has `running` in it, in `run.model.state_dict()`? Compare with `run.start`.",
    "wrong preparation": "Answer 32 test cells with another `mean` and `std`. Do the reported probabilities come out?",
    "torn panel": "Which panels do `run.split.train` and `run.split.test` have in common?",
    "forgotten head": "What does `tl.audit(run.model, run.optimizer)` say about the head?",
    "chosen on the test": "Which epoch of `run.history` has the lowest validation loss, which the highest test AUC?",
    "swapped classes": "Is a score far below chance on the very cells it was trained on bad luck?",
    "train mode": "Answer the first 32 test cells with `train=True`. Do the reported probabilities come out?",
    "stale features": "Compute the features of some cells anew with `run.model`, and compare with `run.features`.",
}
_SOLUTIONS = {
    "moving statistics": """
    now = run.model.state_dict()
    return any((now[k] != v).any() for k, v in run.start.items() if "running" in k)
""",
    "wrong preparation": """
    cells, reported = run.split.test[:32], run.probabilities[:32]
    other = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    right, wrong = bug_hunt.answer(run, cells), bug_hunt.answer(run, cells, **other)
    return np.allclose(wrong, reported, atol=0.01) and not np.allclose(right, reported, atol=0.01)
""",
    "torn panel": """
    train, val, test = (set(run.data.groups[part]) for part in run.split)
    return bool(train & test)
""",
    "forgotten head": """
    problems = tl.audit(run.model, run.optimizer).problems
    return any("head forgotten" in problem["problem"] for problem in problems)
""",
    "chosen on the test": """
    lowest = min(run.history, key=lambda row: row["val loss"])["epoch"]
    best = max(run.history, key=lambda row: row["test AUC"])["epoch"]
    return run.kept == best != lowest
""",
    "swapped classes": """
    from sklearn.metrics import roc_auc_score
    some = run.split.train[::8]
    return roc_auc_score(run.data.labels[some], bug_hunt.answer(run, some)[:, 1]) < 0.25
""",
    "train mode": """
    cells, reported = run.split.test[:32], run.probabilities[:32]
    right, wrong = bug_hunt.answer(run, cells), bug_hunt.answer(run, cells, train=True)
    return np.allclose(wrong, reported, atol=0.01) and not np.allclose(right, reported, atol=0.01)
""",
    "stale features": """
    cells = run.split.train[:32]
    with torch.inference_mode():
        x = run.model.prepare([run.data[i][0] for i in cells])
        anew = run.model.forward_stages(x)["final"].cpu().numpy()
    return not np.allclose(anew, run.features[cells], atol=0.02)
""",
}


def _convicts(evidence, run):
    said = evidence(run)
    assert said in (True, False), f"Your evidence must answer True or False; for one run it said {said!r}."
    return bool(said)


def _hunt(letter, fault):
    def check(answer):
        assert isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1]), (
            "Hand in a pair: the name of the fault, and a function of a run that answers True or False."
        )
        name, evidence = answer
        assert name in bug_hunt.SUSPECTS, f"The names are {', '.join(bug_hunt.SUSPECTS)}; got {name!r}."
        runs = bug_hunt.suspects()
        assert name == fault, f"Run {letter} is innocent of that: {_CLEARED[name]}."
        assert _convicts(evidence, runs[letter]), (
            f"The name may be right, but your evidence does not convict run {letter}."
        )
        assert not _convicts(evidence, bug_hunt.sound()), (
            "The name may be right, but your evidence convicts the sound run as well, so it shows nothing."
        )
        for other in runs.keys() - {letter}:
            assert not _convicts(evidence, runs[other]), (
                f"The name may be right, but your evidence convicts run {other} as well, which did something else: a "
                "symptom that several faults share is no evidence for one."
            )
        assert not _convicts(evidence, bug_hunt.sound(1)), (
            "Of another sound run, with other panels and another seed, your evidence says True: it fits these runs by "
            "chance."
        )
        assert _convicts(evidence, bug_hunt._run(fault, 1)), (
            "The same fault in another run, with other panels and another seed, goes free: your evidence is about this "
            "run alone."
        )

    return check


_SOLUTION = """
from tlbook.course import bug_hunt


def evidence(run):{body}

answer = {name!r}, evidence
"""
EXERCISES = {
    f"07.{k}": Exercise(
        _hunt(letter, fault),
        hint=_HINTS[fault],
        solution=_SOLUTION.format(body=_SOLUTIONS[fault], name=fault),
    )
    for k, (letter, fault) in enumerate(bug_hunt._FAULT_OF.items(), 4)
}
