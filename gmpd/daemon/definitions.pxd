cimport cython

cdef class RemoteFunction:
    cdef public object fid, ref, quick_ns
    cdef public bint here, is_async, gathers
    @cython.locals(average=cython.longlong)
    cpdef long long learn(self, long long ran_ns) except? -1
