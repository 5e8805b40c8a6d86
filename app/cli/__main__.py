"""`python -m app.cli`: `verbale` with this very Python, whether or not the script is on the path."""

from app.cli import main

main()
