cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from gmpd.daemon.claims cimport Claims
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    void __atomic_thread_fence(int) noexcept
    int __ATOMIC_RELEASE

cdef class WorkerShm:
    cdef object __weakref__
    cdef object _map, _view, _sent
    cdef public object slots, overflow
    cdef readonly Claims claims
    cdef int _fd
    cdef long long _head, _tail
    # The mapped memory; NULL before it is there, and after ``close``.
    cdef char *_base
    cpdef bint begin(self, unsigned long long token, long long now_ns) except -1
    @cython.locals(size=cython.longlong, head=cython.longlong, end=cython.longlong, start=cython.longlong)
    cpdef object store(self, unsigned long long token, int outcome, bytes payload, long long ran_us, long long occupied_us, object buffers=*)
    cdef long long _free(self) except -1

cdef long long _LOW, _RECORD_BYTES, _OUTBOX_AT, _RING
cdef int _CURRENT, _CURRENT_NS, _OUT_HEAD, _OUT_TAIL, _OUT_ACKED

cdef inline int learn_base(WorkerShm shm) except -1:
    cdef Py_buffer buffer
    PyObject_GetBuffer(shm._map, &buffer, PyBUF_WRITABLE)
    shm._base = <char *>buffer.buf  # it does not move until the map is closed
    PyBuffer_Release(&buffer)
    return 0

cdef inline int forget_base(WorkerShm shm) except -1:
    shm._base = NULL
    return 0

# Readers are other processes, at any moment: all before it is written when this is.
cdef inline int put(WorkerShm shm, int slot, unsigned long long value) except -1:
    if shm._base is NULL:
        raise ValueError("the shared memory was closed")
    __atomic_thread_fence(__ATOMIC_RELEASE)
    (<volatile unsigned long long *>shm._base)[slot] = value
    return 0

# As ``_RECORD`` packs it, the payload behind it.
cdef inline int put_record(WorkerShm shm, long long at, int outcome, unsigned long long token, bytes payload, long long ran_us, long long occupied_us) except -1:
    cdef char *to = shm._base + at
    cdef uint32_t length = <uint32_t>len(payload), ran = <uint32_t>ran_us, occupied = <uint32_t>occupied_us
    cdef uint8_t what = <uint8_t>outcome
    cdef uint64_t of_token = token
    if shm._base is NULL:
        raise ValueError("the shared memory was closed")
    memcpy(to, &length, 4)
    memcpy(to + 4, &what, 1)
    memcpy(to + 5, &of_token, 8)
    memcpy(to + 13, &ran, 4)
    memcpy(to + 17, &occupied, 4)
    memcpy(to + 21, <char *>payload, length)
    return 0
