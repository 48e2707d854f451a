"""
The engine: the rules of a layer that crosses processes, each in one place.

    options.py      what CHANNEL_LAYERS may say, and what is refused
    layer.py        the contract of `layers/base.py` over a store
    store.py        what a store must do: the primitives
    transactions.py the same over a storage that has transactions
    records.py      its primitives
    codec.py        messages as text
    leases.py       the thread that sends heartbeats, recovers the dead, and sends what is due
    recovery.py     what happens to a message whose worker died, or that expired
    redelivery.py   the policy: retry, report or dead-letter
    inbox.py        a gateway's end
    pending.py      what a gateway wants done, and has not been sent
    waiting.py      readers that wait, and what wakes them
    counters.py     what is counted
    notices.py      log lines that are rate-limited
    process.py      fork and exit
    threads.py      threads that do not end by a bug

The engine decides; a store moves and remembers. Nothing here knows a database, a server or a connection.
"""
