"""`python -m app` is `verbale`."""

from app.cli import main

main()
