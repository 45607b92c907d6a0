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
    bint PyFunction_Check(object)
    PyObject *PyFunction_GET_CODE(object)

cdef object SyncG, Loop, running_loop, OFFSETS, YIELD
cdef bint COMPILED
cdef long CO_COROUTINE, FULL

cdef inline object new(object kind):
    if kind is G:
        return G.__new__(G)
    return kind.__new__(kind)

cdef inline void note_maker(G g):
    cdef PyFrameObject *frame = PyEval_GetFrame()
    if frame is not NULL:
        g.made_by = PyFrame_GetCode(frame)
        g.made_at = PyFrame_GetLasti(frame)

cdef inline long flags_of(object fn) except -1:
    if PyFunction_Check(fn):
        return (<PyCodeObject *>PyFunction_GET_CODE(fn)).co_flags
    return fn.__code__.co_flags
