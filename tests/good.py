"""A well-formed RLE and a batch of it, for tests of what is wrong beside them."""

import sa1b_fastdecode as fd

GOOD = {"size": [4, 5], "counts": [3, 7, 10]}
GOOD_STRING = b"37:"
BATCH = fd.pack_rles([GOOD] * 3)


def counts(counts):
    return {"size": [4, 5], "counts": counts}
