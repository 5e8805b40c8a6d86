"""A whole federation in one process, in virtual time, played out by a seed: crashes, partitions, skew, malice.

    virtual      time, turns, locks              site      one State's disk, processes and clock
    storage      SQLite that loses power         officers  what contact points write
    quick        sessions without overhead       world     one run, from start to quiet
    network      the transport and the routes
    faults       accidents                       malice    what dishonest nodes do
    invariants   what must hold, checked from outside
    growth       what it costs with 200 States   command   `verbale simulate`

The code under test is the code that ships: nodes are put together from the same parts, and only clock, network, disk,
locks, threads and randomness come from here.
"""
