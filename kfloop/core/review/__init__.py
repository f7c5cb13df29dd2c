"""What people are asked about a dataset version, and what becomes of their answers."""

from kfloop.core.review.answers import Answer, Decision, decide, merge_answers, read_answers
from kfloop.core.review.items import QueueItem, read_queue, write_queue
from kfloop.core.review.queue import build_queue

__all__ = [
    "Answer",
    "Decision",
    "QueueItem",
    "build_queue",
    "decide",
    "merge_answers",
    "read_answers",
    "read_queue",
    "write_queue",
]
