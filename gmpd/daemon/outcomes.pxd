cdef class OutcomeBatch:
    cdef list _tokens, _began_ns, _functions, _payloads, _ran_us, _occupied_us, _buffers
    cdef dict _specials
    cdef public Py_ssize_t nbytes
    cdef public bint told
    cpdef Py_ssize_t add_plain(self, unsigned long long token, long long began_ns, object fid, bytes data, long long ran_us, long long occupied_us) except -1
