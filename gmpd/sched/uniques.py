"""Jobs with a ``unique`` key: one of them waits or runs at a time, and what the others do.

**The tension.** Two clients that ask for the same thing want it done once, and each of them may
cancel its own, or leave.

**Rejected.** To give both clients the same job: a cancel, a window and an outbox belong to one
client. To refuse the second one always: it wants the result too.

**Chosen.** As Go's ``singleflight``. While a job with the key has not ended, another one *follows*
it and gets its outcome (``"return"``), is refused (``"raise"``, by ``admission``), or takes its
place (``"replace"``): at once if the first has not begun, else when it has ended. A follower is a
job of its own client. If the job that it follows is cancelled, expires, or its client leaves, the
follower runs instead.

HELD jobs wait here: the followers, and one successor of a job that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gmpd.errors import InvariantError
from gmpd.sched.records import Job
from gmpd.sched.states import JobState

#: A client of another machine shares keys with those of its owner only: it must not learn of other
#: jobs.
Key = tuple[str, str]
#: A job in one of these has not begun, and no worker has it.
WAITS = frozenset({JobState.DELAYED, JobState.QUEUED, JobState.LIMITED, JobState.HELD})


class _Turn:
    """A job whose turn it is, or will be, and the jobs that follow it."""

    __slots__ = ("followers", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.followers: dict[Job, None] = {}


class Uniques:
    """``begin`` has a HELD job wait for its turn in the queues."""

    def __init__(self, begin: Callable[[Job], None]) -> None:
        self._begin = begin
        #: The job that holds a key, and perhaps its successor. Empty while no job has a key: then
        #: nothing here is called.
        self.by_key: dict[Key, list[_Turn]] = {}

    def __repr__(self) -> str:
        return f"<Uniques: {len(self.by_key)} keys>"

    def __iter__(self) -> Iterator[Job]:
        """The jobs that are HELD."""
        for turns in self.by_key.values():
            for turn in turns:
                yield from turn.followers
            if len(turns) > 1:
                yield turns[1].job

    def holder(self, key: Key) -> Job | None:
        """The job that holds the key."""
        turns = self.by_key.get(key)
        return None if turns is None else turns[0].job

    def admit(self, job: Job) -> Job | None:
        """A new job, HELD. Gives the job that it replaces, which is to end unless it has begun."""
        key = _key(job)
        turns = self.by_key.get(key)
        if turns is None:
            self.by_key[key] = [_Turn(job)]
            self._begin(job)
            return None
        newest = turns[-1]
        assert job.options is not None
        if job.options.on_held != "replace":
            newest.followers[job] = None
        elif newest.job.state not in WAITS:
            turns.append(_Turn(job))
            return newest.job
        else:
            turns[-1] = _Turn(job)
            turns[-1].followers = newest.followers
            if len(turns) == 1:
                self._begin(job)
            return newest.job
        return None

    def take_followers(self, job: Job) -> list[Job]:
        """The jobs that get the same outcome as this one, which ends."""
        for turn in self.by_key.get(_key(job), ()):
            if turn.job is job:
                followers, turn.followers = list(turn.followers), {}
                return followers
        return []

    def ended(self, job: Job) -> None:
        """It has ended. The next one with its key begins, if it held the key."""
        key = _key(job)
        turns = self.by_key.get(key, [])
        turn = next((each for each in turns if each.job is job), None)
        if turn is None:  # it has followed one of them
            for each in turns:
                each.followers.pop(job, None)
            return
        held = turn is turns[0]
        turns.remove(turn)
        if turns:  # its followers follow the other one
            turns[0].followers.update(turn.followers)
        elif turn.followers:
            first = next(iter(turn.followers))
            del turn.followers[first]
            turn.job = first
            turns.append(turn)
        else:
            del self.by_key[key]
            return
        if held:
            self._begin(turns[0].job)

    def validate(self) -> None:
        """Raise InvariantError when a job holds a key and has ended, or a key is held by none."""
        for key, turns in self.by_key.items():
            if not 1 <= len(turns) <= 2 or turns[0].job.state in (JobState.FINAL, JobState.HELD):
                raise InvariantError(f"unique key {key!r} is held by {turns[:1]}")


def _key(job: Job) -> Key:
    assert job.options is not None
    assert job.options.unique is not None
    return job.session.owner, job.options.unique
