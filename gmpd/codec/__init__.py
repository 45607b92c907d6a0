"""Values, calls, results, functions and errors to bytes and back, with their type.

Does not know jobs' options, sockets and limits of size. Only client and worker may call the
functions that unpickle (``decode``, ``decode_call``, ``resolve_function``, ``decode_error``);
coordinator, gateway and command line have ``to_plain``, ``is_plain`` and ``error_summary``.
"""

from gmpd.codec.carried import MARK, carried, carrying, tag_of
from gmpd.codec.diagnose import too_large
from gmpd.codec.error_texts import load_formatter, readable
from gmpd.codec.failures import (
    ErrorSummary,
    add_job_note,
    decode_error,
    encode_error,
    error_summary,
)
from gmpd.codec.functions import FunctionRef, describe_function, resolve_function
from gmpd.codec.hosted_programs import HostedPart, stand_in
from gmpd.codec.hosted_programs import learn as learn_part
from gmpd.codec.pickles import Buffer, own_error
from gmpd.codec.values import (
    NO_MSGPACK,
    Blob,
    OrElse,
    Parts,
    decode,
    decode_call,
    encode,
    encode_call,
    encode_result,
    is_plain,
    scalar_result,
    to_plain,
    unpack_plain,
)

__all__ = [
    "MARK",
    "NO_MSGPACK",
    "Blob",
    "Buffer",
    "ErrorSummary",
    "FunctionRef",
    "HostedPart",
    "OrElse",
    "Parts",
    "add_job_note",
    "carried",
    "carrying",
    "decode",
    "decode_call",
    "decode_error",
    "describe_function",
    "encode",
    "encode_call",
    "encode_error",
    "encode_result",
    "error_summary",
    "is_plain",
    "learn_part",
    "load_formatter",
    "own_error",
    "readable",
    "resolve_function",
    "scalar_result",
    "stand_in",
    "tag_of",
    "to_plain",
    "too_large",
    "unpack_plain",
]
