"""Random messages of any protobuf type: mostly of plausible values, some hostile, made from the descriptors alone."""

import math
import struct

from google.protobuf.descriptor import FieldDescriptor

from tests.security.pictures import jpeg

COLLECTION = "shop"
_JPEG = jpeg(1)
_STRINGS = (
    *("", COLLECTION, COLLECTION, COLLECTION, "live", "P1", "P2", "0", "price", "title", "nothing-of-that-name"),
    *("a" * 64, "x" * 300, "../../etc/passwd", "a\x00b", "ümläut ✓", "' OR 1=1 --", "-", " ", "price < 5", "(" * 200),
    *('title = "Thing 1" and not (price >= 2 or price in (1, 2))', "cnn", "features", "\U0010ffff", "%s%n{0}"),
)
_INTEGERS = (
    0,
    1,
    2,
    3,
    5,
    10,
    100,
    1_000,
    1_001,
    65_536,
    2**31 - 1,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
    -1,
    -(2**63),
)
_FLOATS = (0.0, 0.1, 0.5, 1.0, 2.0, -1.0, 1e-30, 1e30, math.inf, -math.inf, math.nan, 1e308, 5e-324, 2.0**63)
_WIDTH = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_DEEPEST = 6
_MANY = 2_000


def fill(message, random, *, dim=32, fingerprint="", depth=0):
    """Sets some of a message's fields, and theirs; `dim` and `fingerprint` are those of a vector that would fit."""
    descriptor = message.DESCRIPTOR
    if descriptor.full_name == "vitrine.v1.Vector" and random.random() < 0.7:
        values = [random.gauss(0, 1) for _ in range(dim)]
        if random.random() < 0.1:
            values[random.randrange(dim)] = random.choice(_FLOATS[8:11])
        message.data = struct.pack(f"<{dim}f", *values)
        message.dtype, message.dim = 1, dim
        message.fingerprint = fingerprint if random.random() < 0.9 else "0" * 64
        return message
    chosen = {group.name: random.choice(group.fields).name for group in descriptor.oneofs}
    for field in descriptor.fields:
        group = field.containing_oneof
        if group is not None and (chosen[group.name] != field.name or random.random() < 0.1):
            continue
        likely = 0.9 if field.name in ("collection", "image", "query", "queries") else 0.45
        if group is None and random.random() > likely:
            continue
        _set(message, field, random, {"dim": dim, "fingerprint": fingerprint, "depth": depth + 1})
    return message


def _set(message, field, random, below):
    value = getattr(message, field.name)
    is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    if is_message and field.message_type.GetOptions().map_entry:
        of = field.message_type.fields_by_name["value"]
        for _ in range(random.choice((1, 2, 3, 40))):
            key = _scalar(field.message_type.fields_by_name["key"], random)
            if of.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                fill(value[key], random, **below)
            else:
                value[key] = _scalar(of, random)
    elif field.is_repeated:
        count = random.choice((0, 1, 1, 1, 2, 3, 9))
        if random.random() < 0.01 and below["depth"] < 3:
            count = _MANY
        if is_message and below["depth"] > _DEEPEST:
            count = 0
        for _ in range(count):
            if is_message:
                fill(value.add(), random, **below)
            else:
                value.append(_scalar(field, random))
    elif is_message:
        if below["depth"] <= _DEEPEST:
            value.SetInParent()
            fill(value, random, **below)
    else:
        setattr(message, field.name, _scalar(field, random))


def _scalar(field, random):
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return random.choice(_FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return random.choice((*field.enum_type.values_by_number, 77))
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return _bytes(random)
        case FieldDescriptor.CPPTYPE_STRING:
            return COLLECTION if field.name == "collection" and random.random() < 0.8 else random.choice(_STRINGS)
        case kind:
            low, high = _WIDTH[kind]
            small = [each for each in _INTEGERS if low <= each <= high]
            return random.choice(small[:7]) if random.random() < 0.7 else random.choice(small)


def _bytes(random):
    content = bytearray(_JPEG)
    match random.randrange(6):
        case 0:
            return random.randbytes(random.choice((0, 1, 7, 100, 10_000)))
        case 1:
            return bytes(content[: random.randrange(len(content))])
        case 2:
            for _ in range(random.choice((1, 3, 30))):
                content[random.randrange(len(content))] = random.randrange(256)
    return bytes(content)


def statuses(message):
    """Every `google.rpc.Status` code inside a message."""
    if message.DESCRIPTOR.full_name == "google.rpc.Status":
        yield message.code
        return
    for field, value in message.ListFields():
        if field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from statuses(each)
