"""`python -m actorflow`, and the `actorflow` command."""

from actorflow.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
