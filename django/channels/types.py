"""Types that several public modules share. They exist for annotations alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

if TYPE_CHECKING:
    from typing import Protocol

    class ConsumerClass(Protocol):
        """A class whose instances handle one message each, such as a subclass of BaseConsumer."""

        def channel_names(self) -> set[str]:
            """Return the names of the channels that the class takes."""
            ...


#: What handles a message: it is called with a Message and the keyword arguments of its route.
Consumer = Callable[..., Any]

#: A consumer that a decorator returns with the signature that it had.
AnyConsumer = TypeVar("AnyConsumer", bound=Consumer)

#: How a frame closes the socket after it: False for not at all, True for code 1000, or a close code.
Close = Union[bool, int]
