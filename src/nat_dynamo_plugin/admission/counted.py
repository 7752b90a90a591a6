"""The questions that take room, by who is next, and how much they take."""

from __future__ import annotations

from bisect import bisect_left, insort

from nat_dynamo_plugin.admission.questions import Question
from nat_dynamo_plugin.admission.working_set import WorkingSet
from nat_dynamo_plugin.telemetry.record import CallRecord


class CountedQuestions:
    """Questions under way whose tokens are counted."""

    def __init__(self) -> None:
        self.set = WorkingSet()
        self._by_order: list[tuple[tuple[float, int], Question]] = []

    def __len__(self) -> int:
        return len(self._by_order)

    @property
    def tokens(self) -> float:
        """Tokens of all of them, what they share counted once."""
        return self.set.tokens

    def add(self, question: Question) -> None:
        """Count it."""
        question.counted = True
        self.set.add(question.prompt, question.grown)
        insort(self._by_order, (question.order, question))

    def remove(self, question: Question) -> None:
        """Count it no longer, if it is."""
        if question.counted:
            question.counted = False
            self.set.remove(question.prompt, question.grown)
            del self._by_order[bisect_left(self._by_order, (question.order,))]

    def pop_last(self) -> Question:
        """Count the last by the order no longer; that one."""
        question = self._by_order[-1][1]
        self.remove(question)
        return question

    def answered(self, question: Question, record: CallRecord) -> None:
        """Learn from the answer to a call of a question that is in, counted or not."""
        if record.prompt_tokens is None:
            return
        if question.first_tokens is None:
            question.first_tokens = record.prompt_tokens
        grown = max(0, record.prompt_tokens + (record.completion_tokens or 0) - question.first_tokens)
        self.set.learn(question.prompt, question.first_tokens, max(0, grown - question.grown))
        if question.counted:
            self.set.grow(grown - question.grown)
        question.grown = grown
