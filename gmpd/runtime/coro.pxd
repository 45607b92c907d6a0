cdef class AnyCoroG:
    pass

cdef class YieldOnce:
    cdef bint _has_yielded
