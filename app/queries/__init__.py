"""Reads over the projected rows, every one through the gate; never over the log's leaves, save to show one.

`filters` is the query language of `/v1/notices` and of subscriptions, `notices` answers about notices, `federation` about
States and their logs. Functions take a read session first, so that one answer is one snapshot: a list and its count agree.
"""
