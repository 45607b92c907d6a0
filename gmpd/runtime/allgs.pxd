cdef class AllGs:
    cdef public list _sets
    cdef public set young
    cpdef object grow(self)
