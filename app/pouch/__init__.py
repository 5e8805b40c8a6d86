"""The pouch: what a State has missed, in one file, for a node that no wire reaches.

    archive   the file: named members, one digest over all of it
    pack      from this node's mirrors and bodies, for one State, since what that State is known to hold
    inspect   whether the file proves what it carries, with nothing but a pinned roster root
    unpack    into a node, through the very code that follows other nodes over HTTP: the file answers in their place

Any carrier will do. Nothing in a pouch is believed because it came in a pouch: the roster is verified from the pinned
root, leaves against heads their logs signed, bodies against commitments in those leaves. Bodies that are not for
everybody are sealed to the addressee's key, so the carrier reads nothing. The form is in docs/protocol.md.
"""
