"""What a server, a proxy or a disk can do to a file: the faults of hub_server.LocalHub as a table.

A fault answers a request in the hub's place, from the file's bytes and the headers that an honest answer carries.
"""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub_server import Request

Headers = Mapping[str, str]
Fault = Callable[['Request', bytes, Headers], None]

ENDLESS_BYTES = 50 * 2**20  # when "endless" ends, should nobody hang up
HTML = b'<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>'


def truncated(request: 'Request', data: bytes, headers: Headers) -> None:
    request.answer(200, data[: len(data) // 2], {**headers, 'Content-Length': str(len(data))})


def longer(request: 'Request', data: bytes, headers: Headers) -> None:
    request.answer(200, data + bytes(1000), headers)


def flipped(request: 'Request', data: bytes, headers: Headers) -> None:
    middle = len(data) // 2
    request.answer(200, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], headers)


def endless(request: 'Request', data: bytes, headers: Headers) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(ENDLESS_BYTES // 2**20):
        request.wfile.write(bytes(2**20))


def lengthless(request: 'Request', data: bytes, headers: Headers) -> None:
    request.answer(200, data[:1000], {**headers, 'Content-Length': 'many'})


def html(request: 'Request', data: bytes, headers: Headers) -> None:
    request.answer(200, HTML, {'Content-Type': 'text/html'})


def slow(request: 'Request', data: bytes, headers: Headers) -> None:
    request.server.closing.wait()


def reset(request: 'Request', data: bytes, headers: Headers) -> None:
    request.wfile.write(b'HTTP/1.0 200 OK\r\nContent-Le')
    # a lingering time of 0 makes close() send RST; FIN would look like the end of the headers
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    os.close(request.connection.detach())


def file_redirect(request: 'Request', data: bytes, headers: Headers) -> None:
    request.answer(302, b'', {**headers, 'Location': 'file:///etc/passwd'})


def evil_etag(request: 'Request', data: bytes, headers: Headers) -> None:
    request.answer(200, data, {**headers, 'ETag': '"../../../../x"'})


def refuse(status: int, code: str = '') -> Fault:
    return lambda request, data, headers: request.refuse(status, code)


# In the place of the bytes, whichever host they come from; a HEAD is answered honestly
CONTENT_FAULTS: dict[str, Fault] = {
    'truncated': truncated,
    'longer': longer,
    'endless': endless,
    'flipped': flipped,
    'html': html,
    'lengthless': lengthless,
    'slow': slow,
    'reset': reset,
}
# In the place of the first answer about a file, HEAD or GET
RESOLVE_FAULTS: dict[str, Fault] = {
    'file_redirect': file_redirect,
    'evil_etag': evil_etag,
    '404': refuse(404, 'EntryNotFound'),
    '401': refuse(401, 'RepoNotFound'),
    '500': refuse(500),
}
FAULTS = CONTENT_FAULTS | RESOLVE_FAULTS
