"""The command line: every command is one public function of the package."""

import inspect
import json
import os
import shutil
import socket
import sys
import warnings
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

import tlbook


class _Messages(typer.core.TyperGroup):
    """Print a user's mistake, a warning and Ctrl-C as messages; ``--debug`` shows where they came from."""

    def invoke(self, ctx):
        for stream in (s for s in (sys.stdout, sys.stderr) if hasattr(s, "reconfigure")):
            stream.reconfigure(errors="backslashreplace")  # a file name, or a sign, that a terminal has no letters for
        if ctx.params["debug"]:
            return super().invoke(ctx)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", UserWarning)
                warnings.filterwarnings("ignore", "(Corrupt|Possibly corrupt) EXIF data")  # which is passed over
                warnings.showwarning = _print_warning
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # both are RuntimeErrors
            raise
        except KeyboardInterrupt:
            typer.echo("\nStopped by Ctrl-C: nothing half-written is left", err=True)  # ^C stands on the line
            raise typer.Exit(130) from None
        except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
            rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"
            typer.echo(f"Error: {error}" if rank == "0" else f"Error in process {rank}: {error}", err=True)
            raise typer.Exit(1) from None


def _print_warning(message, category, filename, lineno, file=None, line=None):
    typer.echo(f"Warning: {message}", err=True)


class _DefaultsOfFinetune(typer.core.TyperCommand):
    """Say in --help what `tlbook.finetune` takes where an option is left out."""

    def format_help(self, ctx, formatter):
        arguments = inspect.signature(tlbook.finetune).parameters
        defaults = {name: a.default for name, a in arguments.items() if a.default is not a.empty}
        for option in self.params:
            if option.default is None and option.name in defaults:
                default = defaults[option.name]
                said = "the recipe's own" if option.name == "lr" else "none" if default is None else default
                option.default, option.show_default = str(said), True
        super().format_help(ctx, formatter)


app = typer.Typer(cls=_Messages, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool):
    if wanted:
        typer.echo(f"tlbook {tlbook.__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
):
    """Transfer learning, run and measured."""


@app.command()
def course(
    only: Annotated[str | None, typer.Option(help="Lessons to run, as in 00,03. All when left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the executed copies.")] = Path("build/course"),
):
    """Run the lessons and print what each one measured.

    Example: tlbook course --only 00,03
    """
    from tlbook.course.runner import run_course

    if out.resolve() == Path("notebooks").resolve():
        raise ValueError("--out would overwrite the lessons: choose another folder")
    numbers = [number.strip() for number in only.split(",")] if only else None
    rows = run_course(only=numbers, out=out)
    typer.echo(f"\n{rows}")


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False):
    """Show versions, hardware and what is missing; exit with 1 when the course lacks something.

    Example: tlbook doctor
    """
    from tlbook.course.doctor import doctor

    rows = doctor()
    typer.echo(json.dumps(rows, indent=2) if as_json else rows)
    raise typer.Exit(int(any(row["remedy"] for row in rows)))


Folder = Annotated[
    Path,
    typer.Argument(
        help="A folder with a folder of images, .txt or .wav files for each class; a CSV file of path,label or "
        "text,label; or an .npz file of images X and labels y."
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="A name of tl.list_backbones(), or any of timm's; by default efficientnet_lite0, and minilm for text."
    ),
]
Groups = Annotated[
    Path | None, typer.Option(help="CSV file of path,group: files of a group stay on one side of the split.")
]
Fit = Annotated[
    str | None,
    typer.Option(help="How images come to their size: crop (to the middle), squeeze, or pad (all of it in a frame)."),
]
Labels = Annotated[
    Path | None, typer.Option(help="CSV file of path,label for the files of the folder; group, weight, split.")
]
Skip = Annotated[bool, typer.Option("--skip", help="Go on without broken files, and say which.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


def _check_is_free(option, path, force, *read):
    """Say now, and not after hours of computing, that a file cannot be written at ``path``, or would be lost there.

    ``read`` are the files and folders that the command reads (or None), which are never written to, whatever ``force``.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: name a file")
    _check_is_not_read(option, path, *read)
    if path.exists() and not force:
        raise ValueError(f"{option} {path} exists: choose another, or replace it with --force")
    _check_is_writable(option, path)


def _check_is_not_read(option, path, *read):
    """Refuse a ``path`` that is one of what a command reads, or lies in it; folders are found under every name."""
    target = path.resolve()
    for given in (Path(given) for given in read if given is not None):
        if path.exists() and given.exists() and path.samefile(given):
            raise ValueError(f"{option} {path} is {given}, which is read: choose another")
        if given.is_dir() and any(folder.exists() and folder.samefile(given) for folder in target.parents):
            raise ValueError(f"{option} {path} would lie in {given}, which is read: choose another")


def _check_is_none_of(option, path, files):
    """Refuse a ``path`` that is one of these files, wherever they lie."""
    if path.exists():
        for file in files:
            _check_is_not_read(option, path, file)


def _check_is_writable(option, path):
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=next(p for p in path.absolute().parents if p.exists())):
            pass
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written ({error.strerror}): choose another") from None


def _check_encoder(backbone, fit=None):
    """Say before any file is read that there is no such backbone, or no such way to bring images to their size."""
    from tlbook import backbones

    if backbone is not None:
        backbones.check_name(backbone)
    if fit is not None:
        backbones.check_fit(fit)


@app.command()
def extract(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The file for the features, or a folder for features.safetensors.")],
    backbone: Backbone = None,
    stage: Annotated[str, typer.Option(help="Where to read the features.")] = "final",
    fit: Fit = None,
    skip: Skip = False,
    force: Force = False,
):
    """Compute the features of a folder of images, texts or sounds once, for tl.load_features.

    A CSV file has a first line with the names of its columns, among them text and label.

    Example: tlbook extract photos/ --out features.safetensors
    """
    from tlbook import data as inputs

    out = out / "features.safetensors" if out.is_dir() else out
    _check_is_free("--out", out, force, folder)
    _check_encoder(backbone, fit)
    data = inputs.folder(folder, on_error="skip" if skip else "raise")
    _check_is_none_of("--out", out, getattr(data.inputs, "paths", ()))
    features = tlbook.extract(_encoder_for(data, backbone, fit), data, stages=(stage,))
    features.save(out)
    typer.echo(f"{out}: {features.X.shape[0]:,} × {features.X.shape[1]:,} features, labels {features.y.shape}")


@app.command()
def suspect(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Write the findings as one HTML page with pictures, too.")] = None,
    backbone: Backbone = None,
    groups: Groups = None,
    labels: Labels = None,
    skip: Skip = False,
    force: Force = False,
):
    """Would your split flatter you? Look for copies, scenes, files and borders that give the label away.

    The findings are printed, the worst first. The exit status is 1 where one is serious, 0 where none is.

    Example: tlbook suspect photos/ --out suspicions.html
    """
    from tlbook import data as inputs

    if out is not None:
        _check_is_free("--out", out, force, folder, groups, labels)
    _check_encoder(backbone)
    data = inputs.folder(folder, groups=groups, labels=labels, on_error="skip" if skip else "raise")
    if out is not None:
        _check_is_none_of("--out", out, getattr(data.inputs, "paths", ()))
    found = tlbook.suspect(data, backbone=backbone)
    typer.echo(found)
    if out is not None:
        found.save(out)
        typer.echo(f"\n{out}: the findings with pictures")
    raise typer.Exit(int(bool(found.serious)))


def _encoder_for(data, backbone, fit=None):
    """The encoder of a data set's kind of inputs."""
    from tlbook.kinds import load_encoder

    encoder = load_encoder(data.kind, backbone)
    if fit is not None:
        if encoder.kind != "images":
            raise ValueError(f"--fit is for images, and these are {encoder.kind}: leave it out")
        encoder.set_fit(fit)
    return encoder


@app.command(cls=_DefaultsOfFinetune)
def finetune(
    ctx: typer.Context,
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The folder for the model; it must not exist yet, or be empty.")],
    backbone: Backbone = None,
    recipe: Annotated[
        str, typer.Option(help="auto tries probes and fine-tuning; or head, bias, full, lp_ft, gradual, surgical.")
    ] = "auto",
    minutes: Annotated[float, typer.Option(help="With auto: what fits into these is tried.")] = 10.0,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    lr: Annotated[float | None, typer.Option(help="The learning rate of the deepest stage.")] = None,
    augment: Annotated[
        str | None, typer.Option(help="none, photo (crops, mirrored), flips (four) or dihedral (eight).")
    ] = None,
    fit: Fit = None,
    groups: Groups = None,
    labels: Labels = None,
    skip: Skip = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was interrupted.")] = False,
):
    """Train a classifier on a folder of images, texts or sounds, test it, and save it with a card that says what it is.

    A quarter of them is held out to test on, a fifth of the others to choose the epoch. A folder that holds
    {train,val,test}/{a folder for each class} is taken as it is; without val, a fifth of train chooses. A CSV file has
    a first line with the names of its columns: label, and text, or the path of a file; and group, weight or split
    (train, val, test) where they are known. An .npz file holds uint8 images X (N, H, W[, 3]) and labels y.

    Probes and fine-tunings are compared on held-out folds of all but the test part, the simplest that is as good as the
    best is kept, and it is tested once.

    Example: tlbook finetune photos/ --backbone resnet18 --minutes 30 --out model/
    """
    from tlbook import device, processes

    # Under torchrun the first process alone reads, writes and speaks
    group, checkpoint = processes.join(device.choose()), Path(f"{out}.checkpoint")
    with ExitStack() as reserved, _silence_unless(group.is_first):

        def begin():
            reserved.enter_context(_reserve(out, folder, checkpoint, resume))
            _check_training(recipe, minutes, epochs, lr, augment, seed)
            _check_encoder(backbone, fit)
            return _data_and_split(folder, groups, labels, skip, seed)

        if recipe != "auto" and ctx.get_parameter_source("minutes").name == "COMMANDLINE":
            raise ValueError(
                f"--minutes is the clock of --recipe auto, and the recipe is {recipe}: leave one of them out"
            )
        data, split = _from_first(group, begin)
        recipe = tlbook.recipes.Auto(minutes=minutes, photo=augment != "none") if recipe == "auto" else recipe
        options = {"recipe": recipe, "epochs": epochs, "lr": lr, "augment": None if augment == "none" else augment}
        if "weight" in data.columns:
            options["objective"] = tlbook.Objective(sample_weight=data.columns["weight"])
        options = {name: value for name, value in options.items() if value is not None}
        with _going_on_made_clear(checkpoint) if group.is_first else nullcontext():
            found = tlbook.finetune(
                _encoder_for(data, backbone, fit),
                data,
                split,
                **options,
                seed=seed,
                checkpoint=checkpoint,
                resume=resume,
            )
        if found.stopped == "Ctrl-C":
            _say_how_to_resume(checkpoint)
            raise typer.Exit(130)
        if group.is_first:
            _save(found, out, data, split, f"Trained by `{_command(ctx)}`.", checkpoint)


def _check_training(recipe, minutes, epochs, lr, augment, seed):
    """Say before any file is read which number or choice `tlbook.finetune` would refuse."""
    from tlbook.arguments import positive_number, whole_number
    from tlbook.training.recipes import recipe_of

    recipe_of(recipe)
    positive_number("minutes", minutes)
    if epochs is not None:
        whole_number("epochs", epochs, 1)
    if lr is not None:
        positive_number("lr", lr)
    whole_number("seed", seed, 0)
    if augment not in (None, "none", "photo", "flips", "dihedral"):
        raise ValueError(f"--augment must be none, photo, flips or dihedral, got {augment!r}")


def _silence_unless(is_first):
    """Let a process print nothing, unless it is the first."""
    stack = ExitStack()
    if not is_first:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
    return stack


def _from_first(group, compute):
    """What ``compute`` returns in the first process, in all; where it fails there, the others end in silence."""
    value = None
    try:
        value = compute() if group.is_first else None
    finally:  # the others wait for it
        value = group.from_first(value)
    if value is None:
        raise typer.Exit(1)
    return value


@contextmanager
def _reserve(out, folder, checkpoint, resume):
    """Check that a model can be written to ``out``, and keep others from training to it until the block ends."""
    if not out.name or out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder: choose another --out")
    _check_is_not_read("--out", out, folder)
    _check_is_writable("--out", out)
    owner = checkpoint / "owner"
    with _lock(owner, out) as file:
        try:
            if any(checkpoint.rglob("checkpoint.safetensors")) and not resume:  # its own, or of a fold of a search
                raise ValueError(
                    f"{checkpoint} holds a training that was interrupted: go on with --resume, or remove it"
                )
            yield
        finally:
            if os.name == "nt":  # where an open file cannot be removed
                file.close()
            with suppress(OSError):  # the folder stays where there is a checkpoint in it
                owner.unlink()
                checkpoint.rmdir()


def _lock(path, out):
    """Open the file at ``path``, with this process's name in it, for this process alone, however it may end.

    Raises:
        ValueError: another process has it.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        try:
            _lock_open(file)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                raise ValueError(
                    f"--out {out} is being trained to by {file.read() or 'another process'}: wait for it, or choose "
                    "another --out"
                ) from None
        except OSError:
            pass  # a file system without locks
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.close()  # its owner removed it meanwhile


def _lock_open(file):
    """Lock an open file; the system unlocks it when the process ends."""
    if os.name == "nt":
        import msvcrt

        os.lseek(file.fileno(), 2**30, os.SEEK_SET)  # past the text, which others may read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _data_and_split(folder, groups, labels, skip, seed):
    """The examples and their parts: those that the folder has, or drawn by group or at random."""
    from tlbook import data as inputs

    data = inputs.folder(folder, groups=groups, labels=labels, on_error="skip" if skip else "raise")
    by = "given" if "part" in data.columns else "random" if data.groups is None else "group"
    split = data.split(by=by, seed=seed)
    pairs = inputs.near_duplicates(data, split)
    if pairs:
        kind = data.kind.name
        raised = "test images look" if kind == "images" else f"{kind} to test on begin"
        remedy = f"keep such {kind} in one group of --groups"
        if by == "given":
            remedy = "move one of the two to the part of the other"
        elif labels is not None or not folder.is_dir():
            remedy = f"give such {kind} one value in {'an array' if folder.suffix == '.npz' else 'a column'} 'group'"
        warnings.warn(
            f"{len(pairs)} of {len(split.test)} {raised} like one that is trained on, such as "
            f"{pairs[0]['test']} and {pairs[0]['seen']}. If they show one thing, the scores flatter: {remedy}",
            stacklevel=2,
        )
    return data, split


@contextmanager
def _going_on_made_clear(checkpoint):
    """When something fails, say how to go on from the checkpoint; remove one that has no weights worth keeping."""
    from tlbook.training import checkpoints

    try:
        yield
    except ValueError:  # of an argument: the same command would fail again
        raise
    except BaseException as error:
        file = checkpoint / "checkpoint.safetensors"
        if isinstance(error, RuntimeError) and file.exists():
            if checkpoints.read(file)[1]["progress"]["lowest"] is None:
                file.unlink(missing_ok=True)
        if any(checkpoint.rglob(file.name)):
            _say_how_to_resume(checkpoint)
        raise


def _save(found, out, data, split, trained, checkpoint):
    """Save the model, and then remove the checkpoint."""
    with _going_on_made_clear(checkpoint):
        evaluation = found.save(out, data=data, split=split, trained=trained)
    shutil.rmtree(checkpoint, ignore_errors=True)  # Windows keeps the open file that `_reserve` removes
    typer.echo(f"{evaluation or 'Not scored'}\n\n{out}: see README.md")


def _say_how_to_resume(checkpoint):
    typer.echo(f"Nothing is lost: the same command with --resume goes on from {checkpoint}", err=True)


def _command(ctx):
    """The command as it was given, with the names of files for their paths, which are nobody else's business."""
    import shlex

    words, kinds = ["tlbook", ctx.info_name], get_type_hints(finetune)
    for option in ctx.command.params:
        value = ctx.params.get(option.name)
        if value is not None and ctx.get_parameter_source(option.name).name == "COMMANDLINE":
            if kinds[option.name] in (Path, Path | None):  # which older versions of typer hand over as text here
                value = Path(value).resolve().name
            words += option.opts[:1] if option.param_type_name == "option" else []
            words += [] if value is True else [str(value)]
    return shlex.join(words)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that tlbook finetune wrote.")],
    images: Annotated[Path, typer.Argument(help="A file such as the model takes, or a folder of them.")],
    csv: Annotated[Path, typer.Option(help="The file for one line per file, in UTF-8.")],
    cost: Annotated[
        list[str] | None, typer.Option(help="CLASS=PRICE: what it costs to miss one of that class; 1 unless given.")
    ] = None,
    skip: Skip = False,
    force: Force = False,
):
    """Say of each image, text or sound which class it is, with the probability of every class.

    A model that was saved with validation examples also says which classes cannot be excluded ("set", with ; between
    them) and which share of those examples was as unlike the training examples ("known": below .05 it may be none of
    the classes). Its probabilities are calibrated. With prices the class is the one of the lowest expected cost.

    Example: tlbook predict model/ new/ --csv out.csv --cost defective=10
    """
    from tlbook.images import inputs_of
    from tlbook.kinds import KINDS
    from tlbook.training.classifier import load_finetuned

    _check_is_free("--csv", csv, force, model)  # a table may lie beside the images that it is of
    found = load_finetuned(model)
    kind, prices = KINDS[found.model.kind], _prices(cost, found.class_names)
    if prices and found.decider is None:
        raise ValueError(
            f"--cost needs calibrated probabilities, and {model} was saved without enough validation examples for them"
        )
    _check_is_none_of("--csv", csv, inputs_of(images, kind).paths)
    paths = _files_of(images, skip, kind)
    if found.decider is None and not prices:
        names, rows = found.class_names, [[found.class_names[p.argmax()], *p] for p in found.predict(paths)]
    else:
        decided = found.decide(paths, costs=prices)
        _, *names = decided[0]
        rows = [(row | {"set": ";".join(row["set"])}).values() for row in decided]
    _write_csv(csv, paths, rows, names)
    typer.echo(f"{csv}: {len(paths):,} {kind.name}")


def _prices(costs, class_names):
    """{class: price} of ["class=price", …]."""
    from tlbook.arguments import positive_number

    prices, names = {}, list(map(str, class_names))
    for words in costs or []:
        name, _, price = words.rpartition("=")
        try:
            price = float(price)
        except ValueError:
            raise ValueError(f"--cost must be CLASS=PRICE, such as defective=10, got {words!r}") from None
        if name not in names:
            raise ValueError(f"--cost names {name!r}, and the classes are {', '.join(names)}: one --cost for each")
        if name in prices:
            raise ValueError(f"--cost names {name!r} twice: leave one of them out")
        prices[name] = positive_number(f"--cost {name}", price)
    return prices


def _files_of(path, skip, kind):
    """The files of a kind at a path that can be read; what is passed over is counted and named."""
    from tlbook.data.folders import listed
    from tlbook.images import check, find, inputs_of

    paths = inputs_of(path, kind).paths
    others = find(path, kind.why_not)[1] if path.is_dir() else {}
    if others:
        lines = listed([f"{other} {why}" for other, why in others.items()])
        warnings.warn(f"{len(others)} files passed over:\n  {lines}", stacklevel=2)
    good, problems = check(paths, kind.bits, kind.name)
    if problems:
        lines = listed(problems)
        if path.is_file():
            hint = f": give {kind.name} or a folder of them" if kind.why_not(path) else ""
            raise ValueError(lines + hint)
        if not skip or not good:
            raise ValueError(f"{len(problems)} {kind.name} cannot be read:\n  {lines}\nRemove them, or pass --skip")
        warnings.warn(f"{len(problems)} {kind.name} passed over:\n  {lines}", stacklevel=2)
    return list(good)


def _write_csv(path, images, rows, names):
    """A line for each image: its path, the class, and a value for each of ``names``, which no two columns share."""
    from csv import writer

    from tlbook import cache
    from tlbook.table import apart_from

    with (
        cache.atomic(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names as the disk has them
    ):
        lines = writer(file)
        lines.writerow(["path", "class", *apart_from(("path", "class"), names)])
        lines.writerows(
            [str(image), answer, *(value if isinstance(value, str) else f"{value:.6f}" for value in values)]
            for image, (answer, *values) in zip(images, rows, strict=True)
        )


@app.command()
def export(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="A folder that tlbook finetune wrote.")],
    out: Annotated[Path, typer.Option(help="The ONNX file.")] = Path("model.onnx"),
    page: Annotated[Path | None, typer.Option(help="In place of a file: a folder for a page that answers.")] = None,
    force: Force = False,
):
    """Write a model as ONNX, or as a page that answers in a browser, and check that it answers as the original.

    Example: tlbook export model/ --out model.onnx

    Example: tlbook export model/ --page site/
    """
    from tlbook.training.classifier import load_finetuned

    if page is not None:
        if ctx.get_parameter_source("out").name == "COMMANDLINE":
            raise ValueError(f"--out {out} is a file, and --page {page} a page in its place: leave one of them out")
        _check_is_not_read("--page", page, model)
        return _write_page(page, load_finetuned(model))
    _check_is_free("--out", out, force, model)
    found = load_finetuned(model)
    difference, (height, width) = found.export(out), found.model._size
    typer.echo(
        f"{out}: for images of {height} × {width} pixels; its probabilities differ from the original's by at most "
        f"{difference:.0e}"
    )


@app.command()
def page(
    out: Annotated[Path, typer.Option(help="The folder for the page; it must not exist yet, or be empty.")],
    backbone: Annotated[
        str, typer.Option(help="A name of tl.list_backbones() that sees images.")
    ] = "efficientnet_lite0",
):
    """Write a page that learns in the browser to tell apart the pictures that it is given.

    Example: tlbook page --out site/
    """
    _write_page(out, tlbook.load_backbone(backbone))


def _write_page(folder, model):
    from tlbook.page import write

    difference = write(folder, model)
    typer.echo(f"{folder / 'index.html'}: open it in a browser; its network is off by at most {difference:.0e}")
