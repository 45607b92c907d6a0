cimport cython
from cpython.object cimport PyObject
from gmpd.runtime.coro cimport AnyCoroG
from gmpd.runtime.p cimport P
from gmpd.sched.runq cimport RunQueue

cdef extern from "Python.h":
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object)
    int PyIter_Send(object, object, PyObject **)
    object steal "(PyObject *)" (PyObject *)

cdef class Resumable(AnyCoroG):
    cdef public P _p
    cdef public object _send, _coro_or_args, _context, _fut_waiter, _fn, _value, _must_cancel, _name
    cdef public long long id, since_ns
    cdef public int _cancels
    @cython.locals(p=P, runq=RunQueue)
    cpdef object _run(self)
    @cython.locals(p=P, runq=RunQueue)
    cpdef object ready(self, object _sg=*)
    cpdef object _returned(self, object value)

cdef bint COMPILED
cdef object ENDED, end_value
cdef dict current_tasks
cdef object GOSCHED, SEND, Wait, CoroutineType

cdef inline int checked(int status) except -1:
    return status

cdef inline object resume(object context, object coro):
    global end_value
    cdef PyObject *value = NULL
    cdef int status
    PyContext_Enter(context)
    status = PyIter_Send(coro, None, &value)
    checked(PyContext_Exit(context))
    checked(status)
    if status == 1:
        return steal(value)
    end_value = steal(value)
    return ENDED

cdef inline object returned():
    global end_value
    value = end_value
    end_value = None
    return value
