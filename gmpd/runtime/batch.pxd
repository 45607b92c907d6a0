cimport cython
from gmpd.runtime.g cimport G
from gmpd.runtime.p cimport P
from gmpd.sched.runq cimport RunQueue

cdef class Batches:
    cdef public object _fresh, _long_ns, _ms, _probe, clock
    cdef public P _p
    cdef public long long _probe_ns
    cdef public Py_ssize_t past_max
    @cython.locals(p=P, runq=RunQueue, child=G, home=bint, watched=bint, ran=Py_ssize_t, left=Py_ssize_t, total=Py_ssize_t, inherited=Py_ssize_t, handful=Py_ssize_t, took=cython.longlong, past_max=Py_ssize_t)
    cpdef bint run(self, object m) except -1
    @cython.locals(p=P, runq=RunQueue)
    cpdef bint _look_past(self) except -1

cdef object JobG, Task, ANY, AWAY, HOME
