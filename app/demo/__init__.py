"""`verbale demo`: four States on one machine exchange, verify and deliver notices. `app.demo.command` is the way in."""
