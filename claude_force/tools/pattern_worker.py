"""Finds the lines that match a regular expression of Python: a program of its own, which can be killed.

A model's expression may take Python's engine for ever, or all memory. So it does not run in the process that
holds the run, but in this one, which imports nothing but the standard library.

    python -I -S pattern_worker.py < request > answer

The request is a line of JSON (`pattern`, `finds`, `most`), then each text: 8 bytes of its length, its bytes.
The answer is for each text how many numbers follow, and the first and last line of each match, as native
integers of 8 bytes. Where it `finds` "parts", it is JSON: the matched texts. With the exit code REFUSED it is
what is wrong with the pattern.
"""

import json
import re
import sys
from array import array
from itertools import chain
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Tuple

Lines = List[Tuple[int, int]]
REFUSED = 3
_MOST_MEMORY = 2 * 1024**3
_MOST_SECONDS = 30


def matched_lines(search: Callable[[Any, int], Any], text: Any, most: Optional[int] = None) -> Lines:
    """The numbers of the lines that match by themselves, from 0, each twice; the first `most` of them.

    `search`: finds the first match in a text from a place on. It may find one that spans lines, and such a
    one does not count, so each line that it finds is searched again alone.
    """
    newline = b"\n" if isinstance(text, bytes) else "\n"
    end = len(text) - 1 if text.endswith(newline) else len(text)
    found: Lines = []
    place = number = 0
    while place <= end and (most is None or len(found) < most):
        match = search(text, place)
        if match is None or match.start() > end or not text:
            break
        start = text.rfind(newline, 0, match.start()) + 1
        number += text.count(newline, place, start)
        stop = text.find(newline, start)
        stop = len(text) if stop < 0 else stop
        if search(text[start:stop], 0) is not None:
            found.append((number, number))
        place, number = stop + 1, number + 1
    return found


def matched_spans(search: Callable[[Any, int], Any], text: Any, most: Optional[int] = None) -> Lines:
    """The first and last line of each match, which may span lines; of the first `most` matches."""
    newline = b"\n" if isinstance(text, bytes) else "\n"
    found: Lines = []
    place = number = counted = 0
    while place <= len(text) and (most is None or len(found) < most):
        match = search(text, place)
        # An empty match behind the last line end is on no line.
        if match is None or not text or (match.start() == len(text) and text.endswith(newline)):
            break
        start, stop = match.span()
        number += text.count(newline, counted, start)
        counted = start
        found.append((number, number + text.count(newline, start, max(stop - 1, start))))
        place = stop if stop > start else stop + 1
    return found


def matched_parts(search: Callable[[Any, int], Any], text: Any, most: Optional[int] = None) -> List[Any]:
    """The parts of a line that match, without empty ones."""
    found: List[Any] = []
    place = 0
    while place <= len(text) and (most is None or len(found) < most):
        match = search(text, place)
        if match is None:
            break
        start, stop = match.span()
        if stop > start:
            found.append(text[start:stop])
        place = max(stop, place + 1) if stop > start else stop + 1
    return found


def _texts(stream: BinaryIO) -> Iterator[str]:
    while True:
        head = stream.read(8)
        if len(head) < 8:
            return
        yield stream.read(int.from_bytes(head, "big")).decode("utf-8", "surrogateescape")


_FINDERS = {"lines": matched_lines, "spans": matched_spans, "parts": matched_parts}


def _limit() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))


def main() -> None:
    """Answers one request."""
    _limit()
    request = json.loads(sys.stdin.buffer.readline().decode("utf-8", "surrogatepass"))
    try:
        search = re.compile(request["pattern"]).search
    except (re.error, OverflowError, RecursionError) as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED)
    find = _FINDERS[request["finds"]]
    found = [find(search, text, request["most"]) for text in _texts(sys.stdin.buffer)]
    if request["finds"] == "parts":
        json.dump(found, sys.stdout)
        return
    for lines in found:
        numbers = array("q", chain.from_iterable(lines))
        sys.stdout.buffer.write(array("q", [len(numbers)]).tobytes() + numbers.tobytes())


if __name__ == "__main__":
    main()
