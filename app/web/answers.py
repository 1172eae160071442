"""Where answers to this process's sends arrive, and nothing else: all that a process without sockets listens to."""

from collections.abc import Callable

from app.delivery.base import Channel
from app.protocol.magpie_pb2 import Answer, Answers, Blob


class AnswerDesk:
    """A Receiver for answers; the hub of a gateway hands its own on to it."""

    def __init__(
        self, boot_id: str, on_answer: Callable[[Answer], None], on_answers_lost: Callable[[], object]
    ) -> None:
        self._boot_id = boot_id
        self._on_answer = on_answer
        self._on_answers_lost = on_answers_lost

    def on_blob(self, channel: Channel, blob: Blob) -> None:
        """Nobody here to push to."""

    def on_answers(self, answers: Answers) -> None:
        """Hand answers to the producer; those for an earlier life of this node are dropped."""
        if answers.boot_id == self._boot_id:
            for answer in answers.answers:
                self._on_answer(answer)

    def on_cut(self) -> None:
        """Nobody could be told what is missing before answers arrive again."""

    def on_reconnected(self) -> None:
        """Answers may have been missed."""
        self._on_answers_lost()
