from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from gmpd.runtime.step cimport Resumable

cdef extern from "Python.h":
    void Py_SET_TYPE(object, PyTypeObject *)
    bint PyType_HasFeature(PyTypeObject *, unsigned long)
    unsigned long Py_TPFLAGS_HEAPTYPE

cdef int PENDING, RETURNED, FAILED, CANCELLED

cdef class G(Resumable):
    cdef object __weakref__
    cdef public set _among
    cdef public object _callbacks, made_by
    cdef public bint _asyncio_future_blocking
    cdef public int _state
    cdef public long long made_at


# A class of C refuses ``__class__ =``, though nothing of the object changes.
cdef inline void set_class(object g, object kind):
    before = type(g)
    if PyType_HasFeature(<PyTypeObject *>kind, Py_TPFLAGS_HEAPTYPE):
        Py_INCREF(kind)
    Py_SET_TYPE(g, <PyTypeObject *>kind)
    if PyType_HasFeature(<PyTypeObject *>before, Py_TPFLAGS_HEAPTYPE):
        Py_DECREF(before)
