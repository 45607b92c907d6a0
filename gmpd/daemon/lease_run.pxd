cimport cython
from gmpd.daemon.definitions cimport RemoteFunction
from gmpd.daemon.outcomes cimport OutcomeBatch
from gmpd.daemon.shm cimport WorkerShm

# Names of C: since 3.12 each use of another one searches the module's dictionary.
cdef int _OK, _SPANS
cdef long GATHER_MAX, SMALL_BYTES
cdef frozenset _SCALARS
cdef object decode_call, is_due, resolve_function, scalar_result

@cython.locals(outcomes=OutcomeBatch, shm=WorkerShm, ran_us=cython.longlong, occupied_us=cython.longlong, quick_ns=cython.longlong, n=Py_ssize_t)
cpdef object settle(object worker, RemoteFunction fn, unsigned long long token, bytes data, long long began_ns, long long ended_ns, long long occupied_ns)

# Of a number, its bits in binary.
cdef inline int bits(long long number) noexcept:
    cdef int n = 0
    while number:
        number >>= 1
        n += 1
    return n
