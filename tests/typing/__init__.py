"""What type checkers make of programs: good.py has no error, bad.py has those that it lists."""
