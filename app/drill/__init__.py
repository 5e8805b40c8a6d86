"""`verbale drill`: five real nodes on this machine, something goes badly wrong on purpose, and the promise is checked.

Each drill is one module with one function `run(field)`; `app.drill.command` names them. A drill prints what happens as it
happens and fails, with a reason, as soon as what Verbale promises does not hold. Everything it says is invented.
"""
