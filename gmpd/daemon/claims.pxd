cimport cython

cdef extern from "pthread.h" nogil:
    ctypedef int spinlock "pthread_spinlock_t"
    int pthread_spin_trylock(volatile spinlock *)

cdef class Claims:
    cdef object _shared, _view, _owners, _words, _rights, _anchor
    cdef Py_ssize_t _at
    cdef size_t _address
    @cython.locals(place=size_t)
    cpdef bint claim(self, unsigned long long token) except -1
    @cython.locals(place=size_t)
    cpdef bint take_right(self, unsigned long long token) except -1

cdef unsigned long long _MASK, _LOW, _RIGHTS
cdef object _FREE, _TAKEN

# Nonzero if the word at an address was taken already: the step by which a lease is claimed. It is
# over in 10 ns, and the GIL is held.
cdef inline int _take(size_t word) noexcept:
    return pthread_spin_trylock(<volatile spinlock *>word)
