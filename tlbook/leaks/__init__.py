"""Would this split flatter you? Look for what makes a score better than the classifier is.

Everything that could be read instead of the picture is read: copies and pictures of one scene on both sides, the file's
size, date, camera and place in the order, the outermost pixels, the group. Each accusation says how much it is worth
(an AUC beside the classifier's) and how sure it is; p values and intervals count how many such questions were asked.
"""

import numpy as np

from tlbook.data import Dataset
from tlbook.evaluation import _draws, _effective_number, _interval, compare, evaluate
from tlbook.leaks import doubts, look_alikes, readings
from tlbook.leaks.facts import content_size, facts_of
from tlbook.leaks.findings import LOOK, SERIOUS, Finding, Suspicions
from tlbook.table import Table

ALPHA = 0.01  # chance of one false accusation by a p value among all questions together
MOST = 5000  # examples that facts and scores are computed from; look-alikes are sought among all


def suspect(data, *, backbone=None, stage="final", features=None, seed=0):
    """Look for what would make the score of a classifier of these examples better than it is.

    Args:
        data: a Dataset, or a folder (`tlbook.data.folder`). Its own split (``columns["part"]``) and groups are what
            counts as apart, where it has them; otherwise all examples, as a random split would part them.
        backbone: an Encoder, or a name; that of the kind of inputs unless given.
        stage: the features to look with.
        features: `Features` of these examples, where they are at hand; nothing is extracted then.
        seed: of folds and permutations.

    Returns:
        Suspicions. Checks that do not apply are left out: files tell of dates and cameras, arrays do not.

    Raises:
        ValueError: fewer than two classes, or a class of one example.

    >>> found = suspect("photographs/")  # doctest: +SKIP
    >>> found.save("suspicions.html")  # doctest: +SKIP
    """
    data = _as_data(data)
    case = _Case(data, _features_of(data, backbone, stage) if features is None else features.X, seed)
    checks = [_classes, _parts, _copies, _scenes, _facts, _border, _groups, _series, _labels]
    for check in checks:
        check(case)
    order = sorted(case.findings, key=lambda f: (f.severity != SERIOUS, -f.worth))
    return Suspicions(order, case.table, case.scores, case.fine, case.data)


def _as_data(data):
    from tlbook.data import folder

    data = data if isinstance(data, Dataset) else folder(data)
    counts = data.class_counts
    if (counts > 1).sum() < 2 or (counts == 1).any():
        few = [name for name, n in zip(data.class_names, counts, strict=True) if n < 2]
        raise ValueError(f"{data.name!r} must have two classes or more, of two examples or more; too few: {few}")
    return data


def _features_of(data, backbone, stage):
    import tlbook
    from tlbook.kinds import load_encoder

    if backbone is None or isinstance(backbone, str):
        backbone = load_encoder(data.kind, backbone)
    return tlbook.extract(backbone, data, stages=(stage,)).X


class _Case:
    """The data, what was computed of it, and what was found so far."""

    questions = 16  # facts, border, groups, series, scenes, exchanged labels: what p values are divided by

    def __init__(self, data, X, seed):
        if len(X) != len(data):
            raise ValueError(
                f"features are of {len(X)} examples, and data has {len(data)}: give those of these examples"
            )
        self.data, self.X, self.seed = data, X, seed
        self.z = look_alikes.centred(self.X, data.labels)
        self.findings, self.fine, self.scores, self.table = [], [], {}, Table()

        # What the checks that cost much are made on
        rng, N = np.random.default_rng(seed), len(data)
        self.rows = np.arange(N) if N <= MOST else np.sort(rng.permutation(N)[:MOST])
        self.y = data.labels[self.rows]
        self.pictures = look_alikes.small_pictures(data, self.rows) if data.kind.name == "images" else None
        self.groups = None if data.groups is None else np.asarray(data.groups)[self.rows]
        self.is_apart = self.groups is not None and _groups_can_be_held_out(self.y, self.groups)
        self.held = self.groups if self.is_apart else None
        part = data.columns.get("part")
        self.sides = part == "test" if part is not None and "test" in part else None
        if part is not None and self.sides is None and len(np.unique(part)) > 1:
            self.sides = part != "train"
        self.facts = facts_of(data, self.rows)
        self.p = readings.scores_of(self.X[self.rows], self.y, self.held)
        self.evaluation = evaluate(self.p, self.y, groups=self.held, resamples=1)
        self.scores["classifier, " + ("groups held out whole" if self.is_apart else "random folds")] = (
            self.evaluation.auc
        )

    @property
    def apart(self):
        """(N,) what a split must keep from each other, for look-alikes: the parts, the groups, or None."""
        return self.data.groups if self.sides is None else self.sides

    def add(self, *what, **more):
        self.findings.append(Finding(*what, **more))

    def is_sure(self, p):
        return p <= ALPHA / self.questions

    def low(self, evaluation):
        """The lower end of the interval of the AUC that holds for all questions together."""
        e = evaluation
        draws = _draws(e.probabilities, e.labels, e.sample_weight, e.groups, 2000, self.seed)["auc"]
        return _interval(draws, _effective_number(e.sample_weight, e.groups), 1 - 0.05 / self.questions)[0]

    def names(self, pairs, most=3):
        path = self.data.columns.get("path", np.arange(len(self.data)))
        return ", ".join(
            " and ".join(str(path[i]) for i in np.atleast_1d(pair[:2] if isinstance(pair, tuple) else pair))
            for pair in pairs[:most]
        )


def _groups_can_be_held_out(labels, groups):
    """Whether every class has examples in two groups."""
    return min(len(np.unique(groups[labels == k])) for k in np.unique(labels)) > 1


def _classes(case):
    """Does a class live in one group?"""
    if case.data.groups is None:
        return
    groups, labels = np.asarray(case.data.groups), case.data.labels
    count = {k: len(np.unique(groups[labels == k])) for k in np.unique(labels)}
    lonely = [str(case.data.class_names[k]) for k, n in count.items() if n == 1]
    if lonely:
        case.add(
            "classes",
            SERIOUS,
            f"All of {_and(lonely)} comes from one group",
            "What tells that group from others tells the class, and no example of another group can show whether the "
            "class itself was learnt. Add examples of other groups.",
            1.0,
        )
    else:
        case.fine.append(f"every class has examples of at least {min(count.values())} groups")


def _parts(case):
    """Does the given split tear groups?"""
    if case.sides is None or case.data.groups is None:
        return
    groups = np.asarray(case.data.groups)
    both = np.intersect1d(groups[case.sides], groups[~case.sides])
    if len(both):
        share = np.isin(groups[case.sides], both).mean()
        case.add(
            "parts",
            SERIOUS,
            f"The split that came with the data tears {len(both)} groups",
            f"{share:.0%} of what is tested on is of a group that is trained on, such as {both[0]}. Split by group.",
            share,
        )
    else:
        case.fine.append("the given split keeps groups whole")


def _copies(case):
    """Is one picture there twice?"""
    pairs, what = _pairs_of_copies(case)
    if pairs is None:
        return
    one, apart, y = case.data.kind.one, case.apart, case.data.labels
    torn = [p for p in pairs if apart is None or apart[p.i] != apart[p.j]]
    share = len({i for p in torn for i in p[:2]}) / len(case.data)
    if torn:
        turned = sum(p.how != "as it is" for p in torn)
        case.add(
            "copies",
            SERIOUS if case.sides is not None or share >= 0.01 else LOOK,
            f"{len(torn)} pairs of {one}s {what} {_where(case)}",
            f"{share:.1%} of the {one}s have such a copy{f', {turned} of the pairs turned' if turned else ''}, such as "
            f"{case.names(torn, 2)}. If they are one picture, keep one of them; if neighbours, put them in one group.",
            share,
            examples=[p[:2] for p in torn],
        )
    differ = [p for p in pairs if y[p.i] != y[p.j]]
    if differ:
        case.add(
            "copies",
            LOOK,
            f"{len(differ)} pairs of {one}s {what} and have two labels",
            f"Such as {case.names(differ, 2)}. One of the labels is wrong, or the difference is small: look at them.",
            len(differ) / len(case.data),
            examples=[p[:2] for p in differ],
        )
    if not pairs:
        case.fine.append(f"no {one} is there twice")


def _pairs_of_copies(case):
    """(pairs, what is said of them); (None, "") where it cannot be told."""
    if case.pictures is not None:
        near = {pair[:2] for pair in look_alikes.scenes(case.z, None, np.arange(len(case.z))).pairs}
        return look_alikes.copies(case.pictures.grey, near), "are nearly one picture"
    if "bits" in case.data.columns:
        return look_alikes.same_bits(case.data.columns["bits"]), "begin alike"
    return None, ""


def _where(case):
    if case.sides is not None:
        return "on both sides of the split"
    return "in two groups" if case.data.groups is not None else "and would be torn by a random split"


def _scenes(case):
    """Are there several pictures of one scene on both sides?"""
    asked = np.arange(len(case.data)) if case.sides is None else np.flatnonzero(case.sides)
    pairs, _, k, chance = found = look_alikes.scenes(case.z, case.apart, asked)
    if not k:
        return
    share, p = found.more_than_chance(len(asked), 2 if case.sides is None else 1)
    who = "examples" if case.sides is None else "test examples"
    if share >= 1.5 * chance and share >= 0.2 and case.is_sure(p):
        score = ""
        if case.sides is None and len(case.rows) == len(case.data):
            score = _score_kept_together(case, look_alikes.clusters(len(case.data), pairs))
        case.add(
            "scenes",
            SERIOUS,
            f"{share:.0%} of the {who} have a look-alike {_where(case)}",
            f"The nearest is less than half as far as the {k}th nearest; by chance {chance:.0%} would have one. "
            f"Such as {case.names(pairs, 2)}. Several pictures of one scene, patient or object belong in one group."
            + score,
            share,
            examples=[pair[:2] for pair in pairs],
        )
    else:
        case.fine.append(f"look-alikes are no more than chance explains ({share:.0%} of the {who})")


def _score_kept_together(case, cluster):
    """What the score becomes where the members of a cluster stay together, in a sentence."""
    if not _groups_can_be_held_out(case.y, cluster):
        return ""
    kept = evaluate(readings.scores_of(case.X, case.y, cluster), case.y, resamples=1)
    case.scores["classifier, look-alikes kept together"] = kept.auc
    return f" With look-alikes kept together the AUC is {kept.auc:.3f} instead of {case.evaluation.auc:.3f}."


def _facts(case):
    """Does something that is known without a pixel say the label?"""
    nearest = readings.nearest_within(case.z[case.rows], case.y, case.held)
    is_sorted, small = (np.diff(case.y) >= 0).all(), []
    for fact in case.facts:
        shown = readings.fact_from_features(fact, nearest, case.y, case.seed)
        row = {"fact": fact.name, "label from it": "–", "shown in the features": shown.auc}
        if fact.name == "the order of the examples" and is_sorted:
            row["label from it"] = "sorted by class"
        else:
            auc = _judge_fact(case, fact, shown)
            row["label from it"] = f"{auc:.3f}"
            small += [fact.name] if auc <= 0.5 + readings.MARGIN else []
        case.table.append(row)
    accused = any(f.check in ("facts", "order") for f in case.findings)
    if small and not accused:
        case.fine.append("no fact that is known without a pixel says the label: " + _and(small))


def _judge_fact(case, fact, shown):
    """The AUC of a fact alone; adds a finding where it predicts the label, and a word where that is not settled."""
    p, found = readings.label_from(fact, case.y, case.held, case.seed)
    scored = evaluate(p, case.y, groups=case.held, resamples=1)
    is_shown = shown.auc >= 0.5 + readings.MARGIN / 2 and case.is_sure(shown.p)
    is_settled = case.is_sure(found.p) and case.low(scored) > 0.5 + readings.MARGIN
    if is_settled and _is_content(case, fact, scored):
        case.fine.append(f"{fact.name} is not accused: what each picture needs may explain its AUC of {found.auc:.2f}")
    elif is_settled:
        is_name = fact.name.startswith("the order")
        seen = f"of an image, its look-alike is nearer in it than another of its class with probability {shown.auc:.2f}"
        case.add(
            "order" if is_name else "facts",
            SERIOUS if is_shown or not is_name else LOOK,
            f"{fact.name[0].upper()}{fact.name[1:]} predicts the label",
            f"Without a pixel it has an AUC of {found.auc:.3f} (at least {case.low(scored):.2f}); the classifier, "
            f"which sees the pixels, has {case.evaluation.auc:.3f}. "
            + (
                f"The features show it: {seen}. "
                if is_shown
                else f"The features do not show it within a class ({seen}). "
            )
            + _remedy(fact, is_shown),
            found.auc,
            examples=_extremes(fact, case),
        )
    elif found.auc > 0.5 + readings.MARGIN:
        units = f"{len(case.y):,} examples" if case.held is None else f"{len(np.unique(case.held)):,} groups"
        case.fine.append(f"{fact.name} is not accused: {units} do not settle its AUC of {found.auc:.2f}")
    return found.auc


def _remedy(fact, is_shown):
    if not fact.is_order:
        return "A classifier that reads it learns nothing else. Save, resize or choose all classes alike."
    if fact.name.startswith("the order") and not is_shown:
        return "It may be no more than how files were numbered."
    return (
        "Examples that follow each other belong together: name the groups (days, patients, panels), and split by them; "
        "or record all classes at the same times."
    )


def _is_content(case, fact, scored):
    """Whether a file's size says no more than what its picture needs at one setting for all."""
    if fact.name != "the file size":
        return False
    paths = [case.data.inputs.paths[i] for i in case.rows]
    needed = type(fact)(fact.name, np.array([float(content_size(path)) for path in paths]))
    p, _ = readings.label_from(needed, case.y, case.held, case.seed)
    needs = evaluate(p, case.y, groups=case.held, resamples=1)
    return not compare(scored, needs, resamples=1000).interval[0] > 0.05  # nor where it cannot be told


def _extremes(fact, case, most=6):
    order = np.argsort(fact.values, kind="stable")
    return [int(case.rows[i]) for i in [*order[:most], *order[-most:]]]


def _border(case):
    """Do the outermost pixels alone say the label?"""
    if case.pictures is None:
        return
    outer, inner = readings.border_and_inside(case.pictures.colour, case.y, case.held)
    case.scores["outermost pixels alone"], case.scores["a ring further in alone"] = outer.auc, inner.auc
    if (
        case.low(outer) > 0.5 + readings.MARGIN
        and compare(outer, inner, resamples=1000).interval[0] > readings.MARGIN / 2
    ):
        case.add(
            "border",
            SERIOUS,
            "The outermost pixels alone predict the label",
            f"The outer sixteenth on each side has an AUC of {outer.auc:.3f}, a ring as wide further in "
            f"{inner.auc:.3f}, the classifier {case.evaluation.auc:.3f}. A frame, a shadow or a stamp may stand for "
            "the class. Cut the border off, and see whether the score stays.",
            outer.auc,
            examples=_by_class(case),
        )
    else:
        case.fine.append("the outermost pixels say no more than those further in")


def _by_class(case, most=6):
    rng = np.random.default_rng(case.seed)
    rows = [rng.permutation(case.rows[case.y == k])[:most] for k in np.unique(case.y)[:2]]
    return [int(i) for row in rows for i in row]


def _groups(case):
    """Would a random split flatter where groups are known?"""
    if case.groups is None:
        return
    if not case.is_apart:
        return
    random = evaluate(readings.scores_of(case.X[case.rows], case.y), case.y, groups=case.groups, resamples=1)
    case.scores["classifier, random folds that tear groups"] = random.auc
    gap = compare(random, case.evaluation, resamples=1000)
    if gap.interval[0] > 0.02:
        case.add(
            "groups",
            LOOK if case.sides is None or not _is_torn(case) else SERIOUS,
            f"A random split flatters: AUC {random.auc:.3f}, with groups held out whole {case.evaluation.auc:.3f}",
            f"The difference is {gap.difference:+.3f} ({gap.interval[0]:+.3f} to {gap.interval[1]:+.3f}). "
            "Split by group.",
            gap.difference,
        )
    else:
        case.fine.append(f"a random split has an AUC of {random.auc:.3f}, and is not surely better than by groups")


def _is_torn(case):
    groups = np.asarray(case.data.groups)
    return len(np.intersect1d(groups[case.sides], groups[~case.sides])) > 0


def _series(case):
    """Does the score fall when what follows each other in an order is held out together?"""
    if case.groups is not None:
        return
    shown = {row["fact"]: row["shown in the features"] for row in case.table}
    orders = [f for f in case.facts if f.is_order and shown[f.name] >= 0.5 + readings.MARGIN / 2]
    if not orders:
        return
    fact = max(orders, key=lambda f: shown[f.name])
    run = np.argsort(np.argsort(fact.values, kind="stable")) * 20 // len(fact.values)  # twenty runs
    if not _groups_can_be_held_out(case.y, run):
        return
    kept = evaluate(readings.scores_of(case.X[case.rows], case.y, run), case.y, resamples=1)
    case.scores["classifier, neighbours in the order kept together"] = kept.auc
    gap = compare(case.evaluation, kept, resamples=1000)
    if gap.interval[0] > 0.02:
        case.add(
            "series",
            SERIOUS,
            f"A random split flatters: neighbours in {fact.name} look alike and share labels",
            f"With random folds the AUC is {case.evaluation.auc:.3f}, with neighbours held out together {kept.auc:.3f} "
            f"(difference {gap.interval[0]:.3f} to {gap.interval[1]:.3f}). They may be of one series (a panel, a "
            "patient, a day): find out which, and split by it.",
            0.5 + gap.difference,
        )


def _labels(case):
    """Are labels wrong?"""
    doubted = doubts.doubtful(case.p, case.y)
    surer = doubts.confident_class(case.p, case.y)[doubted]  # a rare class has a threshold that most others reach
    doubted = doubted[case.p[doubted, surer] > case.p[doubted, case.y[doubted]]]
    orders = [f for f in case.facts if f.name.startswith("the order")]
    if orders:
        pairs, p = doubts.exchanged(case.p, case.y, orders[0].values, case.seed)
        if len(pairs) >= 3 and case.is_sure(p):
            pairs = [(int(case.rows[i]), int(case.rows[j])) for i, j in pairs]
            case.add(
                "exchanged",
                SERIOUS,
                f"Labels of neighbours in {orders[0].name} look exchanged: {len(pairs)} pairs",
                f"The classifier gives each the label of the other, such as {case.names(pairs, 3)}. Did the list of "
                "labels slip by a line?",
                len(pairs) / len(case.y),
                examples=pairs,
            )
        else:
            case.fine.append("labels of neighbours are not exchanged")
    if len(doubted):
        rows = case.rows[doubted]
        case.add(
            "labels",
            LOOK,
            f"{len(doubted)} labels are doubted ({len(doubted) / len(case.y):.1%})",
            "A classifier that did not see them is surer of another class, and as sure of it as of that class's own: "
            f"{case.names(rows)}. Either it errs or the label does: look at them.",
            len(doubted) / len(case.y),
            examples=rows.tolist(),
        )


def _and(words):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
