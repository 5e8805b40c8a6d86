"""Telling member systems: from rows of `events` to signed POSTs that arrive.

    events ──fan out──▶ deliveries ──claim──▶ gate, payload ──sign, POST──▶ result ──▶ deliveries
    (record)  outbox.py             claims.py   payload.py     send.py        results.py

`deliver.py` keeps doing it.

Guarantees: every live event that a subscription's filter selects and its token may see is delivered at least once, or
stands in the table with the reason why not; a retry carries the same `webhook-id`; nothing leaves this node above the
token's ceiling, unsigned, or to an inner address (`guard.py`). A crash at any line costs at most a duplicate.
Leaves to others: writing `events` (`app.record`, in the transaction of what happened) and who is calling (`app.deps`).
"""
