"""Screening: is this party one that some State's notice speaks against?

`party.Query` is what is asked, `find.Screener` answers. The parts that decide (`normalise`, `keys`, `words`, `score`,
`features`, `explain`) are pure; `index` holds what is searched in memory, filled from `screened_notices`.
"""
