"""What becomes of files: bits flip, ends are lost or grow, parts are moved, repeated, zeroed."""

from hypothesis import strategies as st


def edited(content):
    """Contents that were this once."""
    size = len(content)
    place = st.integers(0, max(size - 1, 0))
    length = st.integers(1, 64)

    def flip(at, bit):
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        return bytes(changed)

    return st.one_of(
        st.builds(flip, place, st.integers(0, 7)),
        place.map(lambda at: content[:at]),
        st.binary(min_size=1, max_size=64).map(content.__add__),
        st.builds(lambda at, new: content[:at] + new + content[at + len(new) :], place, st.binary(max_size=64)),
        st.builds(lambda at, n: content[:at] + bytes(n) + content[at + n :], place, length),
        st.builds(lambda at, n: content[:at] + content[at + n :], place, length),
        st.builds(lambda at, n: content[:at] + content[at : at + n] + content[at:], place, length),
        st.integers(1, 200_000).map(lambda n: b"[" * n),
        st.integers(1, 200_000).map(lambda n: content[:1] + b'"a":{' * n),
        st.binary(max_size=200),
    )
