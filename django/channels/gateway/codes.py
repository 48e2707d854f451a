"""
Close codes of WebSockets, of RFC 6455 and the IANA registry.
"""

NORMAL = 1000
GOING_AWAY = 1001
GONE = 1006
TOO_BIG = 1009
FAILED = 1011
RESTARTED = 1012
OVERLOADED = 1013

#: The codes below 3000 that a server may send. 1005, 1006 and 1015 are never sent.
SENDABLE = frozenset(range(1000, 1015)) - {1004, 1005, 1006}
