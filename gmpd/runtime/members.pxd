# How Python's bytecode reads the fields of a compiled class as fast as slots: it knows the
# descriptors of slots and reads through them by itself, but has to call those that Cython makes.
from cpython.mem cimport PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        const char *name
        int type
        Py_ssize_t offset
        int flags
        const char *doc
    int T_OBJECT_EX, READONLY

cdef extern from "Python.h":
    object PyDescr_NewMember(PyTypeObject *, PyMemberDef *)
    const char *PyUnicode_AsUTF8(object) except NULL
    void PyType_Modified(PyTypeObject *)
    int put "gmpd_put" (PyTypeObject *, object, object) except -1

cdef extern from *:
    """
    #define gmpd_put(type, name, member) PyDict_SetItem((type)->tp_dict, name, member)
    """

cdef inline int as_slots(object kind, object made, object typed) except -1:
    """For the fields of ``kind`` that are objects; ``made`` is one of it, and of no further use.
    Those of the type of ``typed`` can only be read by Python.
    """
    cdef PyObject **words = <PyObject **><void *>made
    cdef Py_ssize_t at
    cdef PyMemberDef *member
    mark = object()
    for name in kind.__slots__:
        for value in (mark, typed):
            try:
                setattr(made, name, value)
            except (AttributeError, TypeError):
                continue  # it is a number, or of one type only, or ``__weakref__``
            for at in range(2, kind.__basicsize__ // sizeof(PyObject *)):
                if words[at] == <PyObject *>value:
                    break
            else:
                continue
            setattr(made, name, None)
            member = <PyMemberDef *>PyMem_Malloc(sizeof(PyMemberDef))  # for ever, as the class
            if member is NULL:
                raise MemoryError
            member.name, member.doc = PyUnicode_AsUTF8(name), NULL
            member.type, member.flags = T_OBJECT_EX, 0 if value is mark else READONLY
            member.offset = at * sizeof(PyObject *)
            put(<PyTypeObject *>kind, name, PyDescr_NewMember(<PyTypeObject *>kind, member))
            PyType_Modified(<PyTypeObject *>kind)
            break
    return 0
