"""The command line: every command is one public function of the package."""

import json
from pathlib import Path
from typing import Annotated

import typer

import tlbook


class _OneLineErrors(typer.core.TyperGroup):
    """Print a user's mistake, and Ctrl-C, as a message; ``--debug`` shows the traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # both are RuntimeErrors
            raise
        except KeyboardInterrupt:
            if ctx.params["debug"]:
                raise
            typer.echo("Stopped by Ctrl-C: nothing half-written is left", err=True)
            raise typer.Exit(130) from None
        except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(cls=_OneLineErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


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
    from tlbook.course import run_course

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


Backbone = Annotated[str, typer.Option(help="A name of tl.list_backbones(), or any of timm's.")]
Groups = Annotated[
    Path | None, typer.Option(help="CSV file of path,group: images of a group stay on one side of the split.")
]
Skip = Annotated[bool, typer.Option("--skip", help="Go on without broken images, and say which.")]


def _images(folder, groups, skip):
    """The Dataset of a folder; what is skipped is said on standard error."""
    import warnings

    from tlbook.data import image_folder

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = image_folder(folder, groups=groups, on_error="skip" if skip else "raise")
    for warning in caught:
        typer.echo(f"Warning: {warning.message}", err=True)
    return data


def _can_write(option, path, is_file=True):
    """Say now, and not after hours of computing, that nothing can be written at ``path``."""
    import tempfile

    if is_file and path.is_dir():
        raise ValueError(f"{option} {path} is a folder: name a file")
    try:
        with tempfile.TemporaryFile(dir=next(p for p in path.absolute().parents if p.exists())):
            pass
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written ({error.strerror}): choose another") from None


@app.command()
def extract(
    folder: Annotated[Path, typer.Argument(help="A folder that holds a folder of images for each class.")],
    out: Annotated[Path, typer.Option(help="The file for the features, or a folder for features.safetensors.")],
    backbone: Backbone = "efficientnet_lite0",
    stage: Annotated[str, typer.Option(help="Where to read the features.")] = "final",
    skip: Skip = False,
):
    """Compute the features of a folder of images once, for tl.load_features.

    Example: tlbook extract photos/ --out features.safetensors
    """
    out = out / "features.safetensors" if out.is_dir() else out
    _can_write("--out", out)
    data = _images(folder, None, skip)
    features = tlbook.extract(tlbook.load_backbone(backbone), data, stages=(stage,))
    features.save(out)
    typer.echo(f"{out}: {features.X.shape[0]:,} × {features.X.shape[1]:,} features, labels {features.y.shape}")


@app.command()
def finetune(
    folder: Annotated[Path, typer.Argument(help="A folder that holds a folder of images for each class.")],
    out: Annotated[Path, typer.Option(help="The folder for the model; it must not exist yet, or be empty.")],
    backbone: Backbone = "efficientnet_lite0",
    recipe: Annotated[str, typer.Option(help="head, full, lp_ft, gradual or surgical.")] = "lp_ft",
    epochs: Annotated[int, typer.Option(help="Passes over the training part.")] = 5,
    lr: Annotated[float, typer.Option(help="The learning rate of the deepest stage.")] = 3e-4,
    augment: Annotated[str, typer.Option(help="none, flips (four) or dihedral (eight).")] = "none",
    groups: Groups = None,
    skip: Skip = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was interrupted.")] = False,
):
    """Train a classifier on a folder of images, test it, and save it with a card that says what it is.

    A quarter of the images is held out to test on, a fifth of the others to choose the epoch.

    Example: tlbook finetune photos/ --backbone resnet18 --recipe lp_ft --out model/
    """
    import shlex
    import shutil
    import sys

    from tlbook.data import near_duplicates

    if not out.name or out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder: choose another --out")
    if folder.resolve() in out.resolve().parents:
        raise ValueError(f"--out {out} would lie among the images: choose another")
    _can_write("--out", out, is_file=False)
    if augment not in ("none", "flips", "dihedral"):
        raise ValueError(f"--augment must be none, flips or dihedral, got {augment!r}")
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists() and not resume:
        raise ValueError(f"{checkpoint} holds a training that was interrupted: go on with --resume, or remove it")
    data = _images(folder, groups, skip)
    split = data.split(by="random" if groups is None else "group", seed=seed)
    twins = near_duplicates(data, split)
    if twins:
        typer.echo(
            f"Warning: {len(twins)} of {len(split.test)} test images look like one that is trained on, such as "
            f"{twins[0]['test']} and {twins[0]['seen']}. If they show one thing, the scores flatter: keep such images "
            "in one group of --groups",
            err=True,
        )
    found = tlbook.finetune(
        tlbook.load_backbone(backbone),
        data,
        split,
        recipe=recipe,
        epochs=epochs,
        lr=lr,
        augment=None if augment == "none" else augment,
        seed=seed,
        checkpoint=checkpoint,
        resume=resume,
    )
    if not found.finished:
        typer.echo(f"Nothing is lost: the same command with --resume goes on from {checkpoint}", err=True)
        raise typer.Exit(130)
    command = shlex.join(["tlbook", *sys.argv[1:]])
    scores = found.save(out, data=data, split=split, trained=f"Trained by `{command}`.")
    shutil.rmtree(checkpoint)
    typer.echo(f"{scores}\n\n{out}: see README.md")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder that tlbook finetune wrote.")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    csv: Annotated[Path, typer.Option(help="The file for one line per image.")],
    skip: Skip = False,
):
    """Say of each image which class it is, with the probability of every class.

    Example: tlbook predict model/ new/ --csv out.csv
    """
    from csv import writer

    from tlbook import cache
    from tlbook.images import check, inputs_of
    from tlbook.training.classifier import load_finetuned

    _can_write("--csv", csv)
    found = load_finetuned(model)
    good, problems = check(inputs_of(images).paths)
    if problems:
        listed = "\n  ".join(problems[:20])
        if images.is_file():
            raise ValueError(listed)
        if not skip or not good:
            raise ValueError(f"{len(problems)} images cannot be read:\n  {listed}\nRemove them, or pass --skip")
        typer.echo(f"Warning: {len(problems)} images passed over:\n  {listed}", err=True)
    p = found.predict(list(good))
    with cache.atomic(csv) as part, part.open("w", newline="", encoding="utf-8") as file:
        rows = writer(file)
        rows.writerow(["path", "class", *found.class_names])
        rows.writerows(
            [str(path), found.class_names[q.argmax()], *(f"{v:.6f}" for v in q)]
            for path, q in zip(good, p, strict=True)
        )
    typer.echo(f"{csv}: {len(good):,} images")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A folder that tlbook finetune wrote.")],
    out: Annotated[Path, typer.Option(help="The ONNX file.")] = Path("model.onnx"),
):
    """Write a model as ONNX, and check that it answers as the original.

    Example: tlbook export model/ --out model.onnx
    """
    from tlbook.training.classifier import load_finetuned

    _can_write("--out", out)
    apart = load_finetuned(model).export(out)
    typer.echo(f"{out}: its probabilities differ from the original's by at most {apart:.0e}")
