cimport cython
from cpython.object cimport PyObject
from gmpd.runtime.coro cimport AnyCoroG
from gmpd.runtime.p cimport P
from gmpd.sched.runq cimport RunQueue

cdef extern from "Python.h":
    int PyContext_Enter(object) noexcept
    int PyContext_Exit(object) noexcept
    int PyIter_Send(object, object, PyObject **) noexcept
    void Py_INCREF(object)
    object taken "(PyObject *)" (PyObject *)
    object steal "(PyObject *)" (PyObject *) noexcept

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
cdef object GOSCHED, SEND, Wait, CoroutineType, swap_current_task

# It raises nothing by itself, so that no traceback shows it: ``taken`` of NULL is the error.
cdef inline PyObject *resume(object context, object coro) noexcept:
    global end_value
    cdef PyObject *value = NULL
    cdef int status
    if PyContext_Enter(context) < 0:
        return NULL
    status = PyIter_Send(coro, None, &value)
    if PyContext_Exit(context) < 0 or status < 0:
        return NULL
    if status == 0:
        end_value = steal(value)
        value = <PyObject *>ENDED
        Py_INCREF(ENDED)
    return value

cdef inline object returned():
    global end_value
    value = end_value
    end_value = None
    return value
