cdef class RunQueue:
    cdef public object runnext
    cdef public object ring
    cdef public object global_
    cdef public object is_started
    cdef public Py_ssize_t ring_max, procs, schedtick, inherited, global_picks, overflows
    cdef public bint inherit
    cpdef object get(self)
    cpdef Py_ssize_t unchecked(self)
    cpdef object picked(self, Py_ssize_t ticks, Py_ssize_t inherited)
    cpdef object runqput(self, object g, bint next_=*)
    cpdef Py_ssize_t _globrunqgetbatch(self)
