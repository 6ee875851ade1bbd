"""``python -m tlbook`` does what ``tlbook`` does."""

from tlbook.cli import app

if __name__ == "__main__":
    app(prog_name="tlbook")
