"""A look at the netpoller that keeps the GIL: it sees what the selector would."""

from __future__ import annotations

import os
import selectors
import socket
import threading

from gmpd.runtime.gil_poll import make_gil_poll
from gmpd.runtime.loop import Loop


def test_it_sees_what_can_be_read_and_nothing_else() -> None:
    a, b = socket.socketpair()
    with a, b, selectors.DefaultSelector() as selector:
        gil_poll = make_gil_poll(selector)
        assert gil_poll is not None
        selector.register(a, selectors.EVENT_READ)
        assert gil_poll() == 0
        b.send(b"x")
        assert gil_poll() == 1
        assert gil_poll() == 1  # looking takes nothing
        a.recv(1)
        assert gil_poll() == 0


def test_a_closed_selector_is_left_to_tell_by_itself() -> None:
    selector = selectors.DefaultSelector()
    gil_poll = make_gil_poll(selector)
    assert gil_poll is not None
    selector.close()
    assert gil_poll() != 0


def test_another_selector_is_asked_itself() -> None:
    class Own(selectors.DefaultSelector):
        pass

    for kind in (selectors.SelectSelector, selectors.PollSelector, Own):
        with kind() as selector:
            assert make_gil_poll(selector) is None


def test_a_loop_takes_any_selector_and_one_that_is_put_in_later() -> None:
    loop = Loop(selectors.SelectSelector())
    r, w = os.pipe()
    try:
        seen: list[int] = []

        def read() -> None:
            seen.append(len(os.read(r, 10)))
            loop.stop()

        loop.add_reader(r, read)
        os.write(w, b"xy")
        loop.run_forever()
        assert seen == [2]
    finally:
        loop.remove_reader(r)
        loop.close()
        os.close(r)
        os.close(w)


def test_a_p_knows_whether_others_may_want_the_gil() -> None:
    loop = Loop()
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(3)]  # more than M0 and sysmon
    try:
        for thread in threads:
            thread.start()
        assert loop.ms.others()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        loop.close()
