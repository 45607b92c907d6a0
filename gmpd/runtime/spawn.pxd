from cpython.object cimport PyObject
from gmpd.runtime.allgs cimport AllGs
from gmpd.runtime.g cimport G
from gmpd.runtime.p cimport P
from gmpd.sched.runq cimport RunQueue

cdef extern from "Python.h":
    object current_context "PyContext_CopyCurrent" ()
    ctypedef struct PyFrameObject:
        pass
    PyFrameObject *PyEval_GetFrame()
    object PyFrame_GetCode(PyFrameObject *)
    int PyFrame_GetLasti(PyFrameObject *)

    ctypedef struct PyCodeObject:
        int co_flags
    PyObject *PyThreadState_GetDict()
    PyObject *PyDict_GetItemWithError(PyObject *, object)
    bint is_function "PyFunction_Check" (object)
    PyObject *PyFunction_GET_CODE(object)

cdef object SyncG, Loop, running_loop, OFFSETS, YIELD
cdef bint COMPILED
# The P of the loop that was the running one last, and what asyncio had in the thread's dict then.
cdef object known_by
cdef P of_known
cdef str RUNNING_LOOP
cdef long CO_COROUTINE, FULL, PENDING

cdef inline object new(object kind):
    if kind is G:
        return G.__new__(G)
    return kind.__new__(kind)

cdef inline void note_maker(G g):
    cdef PyFrameObject *frame = PyEval_GetFrame()
    if frame is not NULL:
        g.made_by = PyFrame_GetCode(frame)
        g.made_at = PyFrame_GetLasti(frame)

cdef inline long flags_of(object fn) noexcept:
    return (<PyCodeObject *>PyFunction_GET_CODE(fn)).co_flags

cdef inline PyObject *shown() noexcept:
    cdef PyObject *by_name = PyThreadState_GetDict()
    return NULL if by_name is NULL else PyDict_GetItemWithError(by_name, RUNNING_LOOP)

cdef inline bint is_known() noexcept:
    return known_by is not None and shown() is <PyObject *>known_by

cdef inline P known_p():
    return of_known

cdef inline int know(P p) except -1:
    global known_by, of_known
    cdef PyObject *by = shown()
    if by is not NULL:
        known_by, of_known = <object>by, p
    return 0

cdef inline int forget() except -1:
    global known_by, of_known
    known_by = of_known = None
    return 0
