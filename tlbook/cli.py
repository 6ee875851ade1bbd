"""The command line: every command is one public function of the package."""

import json
from pathlib import Path
from typing import Annotated

import typer

import tlbook


class _OneLineErrors(typer.core.TyperGroup):
    """Print a user's mistake as a message; ``--debug`` shows the traceback."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # both are RuntimeErrors
            raise
        except (ValueError, FileNotFoundError, RuntimeError) as error:
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
    from tlbook.course import doctor

    rows = doctor()
    typer.echo(json.dumps(rows, indent=2) if as_json else rows)
    raise typer.Exit(int(any(row["remedy"] for row in rows)))
