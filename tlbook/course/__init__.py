"""What only the lessons need: the runner, the check of the machine, widgets, the score card, the exercises."""
