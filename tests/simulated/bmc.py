"""A baseboard management controller on loopback, for the real ipmitool and ipmi-dcmi to query.

It speaks what those two need of IPMI 1.5 over LAN (RMCP, the session commands, authentication by nothing or by MD5) and
answers DCMI's Get Power Reading as the test says. Formats: IPMI specification 2.0 rev. 1.1, sections 13 and 22; DCMI
specification 1.5, section 6.6.
"""

import hashlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

RMCP_VERSION, ASF_CLASS, IPMI_CLASS = 0x06, 0x06, 0x07
ASF_HEADER, ASF_PONG = struct.Struct(">IBBBB"), 0x40
AUTH_NONE, AUTH_MD5 = 0x00, 0x02
DCMI_GROUP = 0xDC
OK, BUSY, INVALID_COMMAND, INVALID_USER = 0x00, 0xC0, 0xC1, 0x81
SESSION_ID, FIRST_SEQUENCE = 0x0000BEEF, 1
DEADLINE_S = 30.0
"""A test that waits longer than this for a client has found a client that does not ask."""


@dataclass(slots=True)
class _Request:
    """One IPMI message from a client, taken apart."""

    auth_type: int
    session_id: int
    sequence: int
    auth_code: bytes
    addresses: tuple[int, int, int, int]
    message: bytes
    net_fn: int
    command: int
    data: bytes = field(default=b"")


class SimulatedBmc:
    """A context manager; answers on `127.0.0.1:port` from a thread of its own while it lasts.

    Set the attributes at any time; the next answer shows them.

    Args:
        user: the user that may open a session; empty for the anonymous one.
        password: with one, sessions are authenticated by MD5; without, by nothing.
    """

    def __init__(self, *, user: str = "", password: str | None = None) -> None:
        self.power_w = 332
        self.is_active = True
        self.completion_code = OK
        """Of the power reading: 0xC1 is "invalid command"."""
        self.num_busy = 0
        """So many of the next power readings are answered with "node busy"."""
        self.is_silent = False
        self.num_power_readings = 0
        self.num_packets = 0
        self._auth_type = AUTH_NONE if password is None else AUTH_MD5
        self._user = user.encode()
        self._password = None if password is None else password.encode().ljust(16, b"\0")
        self._outbound_sequence = 0
        self._stopping, self._counted = threading.Event(), threading.Condition()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="simulated-bmc", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    @contextmanager
    def broken(self, completion_code: int = INVALID_COMMAND) -> Iterator[None]:
        """Answers power readings with that error, inside the block."""
        before, self.completion_code = self.completion_code, completion_code
        try:
            yield
        finally:
            self.completion_code = before

    def wait_for_readings(self, number: int) -> None:
        """Returns when so many more power readings have been asked for, whatever was answered."""
        wanted = self.num_power_readings + number
        with self._counted:
            found = self._counted.wait_for(lambda: self.num_power_readings >= wanted, timeout=DEADLINE_S)
        assert found, f"the client asked only {self.num_power_readings} times"

    def wait_for_packets(self, number: int) -> None:
        """Returns when so many more packets have come, answered or not."""
        wanted = self.num_packets + number
        with self._counted:
            found = self._counted.wait_for(lambda: self.num_packets >= wanted, timeout=DEADLINE_S)
        assert found, f"the client sent only {self.num_packets} packets"

    def _serve(self) -> None:
        while not self._stopping.is_set():
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            packet, client = self._socket.recvfrom(1024)
            with self._counted:
                self.num_packets += 1
                self._counted.notify_all()
            if not self.is_silent and (reply := self._reply(packet)):
                self._socket.sendto(reply, client)

    def _reply(self, packet: bytes) -> bytes | None:
        if packet[3] == ASF_CLASS:
            return _pong(packet)
        request = _parse(packet)
        if request.session_id and self._password and request.auth_code != self._auth_code(request):
            return None  # as the specification asks: a packet that is not authentic is dropped
        completion_code, data = self._answer(request)
        return self._pack(request, bytes([completion_code]) + data)

    def _answer(self, request: _Request) -> tuple[int, bytes]:
        """Returns the completion code and what follows it."""
        match request.net_fn, request.command:
            case 0x06, 0x01:  # Get Device ID
                answer = OK, bytes([0x20, 1, 2, 0x10, 0x51, 0xBF, 0x57, 1, 0, 1, 0])
            case 0x06, 0x38:  # Get Channel Authentication Capabilities: channel, types, status, extensions, OEM
                login = 0b001 if self._password is None else 0b110
                answer = OK, bytes([1, 1 << self._auth_type, login, 0, 0, 0, 0, 0])
            case 0x06, 0x39 if request.data[1:17].rstrip(b"\0") != self._user:  # Get Session Challenge
                answer = INVALID_USER, b""
            case 0x06, 0x39:
                answer = OK, struct.pack("<I", SESSION_ID) + bytes(16)
            case 0x06, 0x3A:  # Activate Session
                self._outbound_sequence = struct.unpack("<I", request.data[18:22])[0]
                answer = OK, struct.pack("<BIIB", self._auth_type, SESSION_ID, FIRST_SEQUENCE, request.data[1])
            case 0x06, 0x3B | 0x3C:  # Set Session Privilege Level, Close Session
                answer = OK, request.data[:1] if request.command == 0x3B else b""
            case 0x2C, 0x02 if request.data[:1] == bytes([DCMI_GROUP]):
                answer = self._power_reading()
            case _:
                answer = INVALID_COMMAND, b""
        return answer

    def _power_reading(self) -> tuple[int, bytes]:
        with self._counted:
            self.num_power_readings += 1
            self._counted.notify_all()
        completion_code = self.completion_code
        if self.num_busy > 0:
            self.num_busy, completion_code = self.num_busy - 1, BUSY
        if completion_code != OK:
            return completion_code, bytes([DCMI_GROUP])
        watts = (self.power_w, 0, 65_535, 1)  # instantaneous, minimum, maximum, average: only the first may be used
        state = 0x40 if self.is_active else 0x00
        return OK, struct.pack("<B4HIIB", DCMI_GROUP, *watts, int(time.time()), 300_000, state)

    def _auth_code(self, request: _Request) -> bytes:
        return _md5_code(self._password or b"", request.session_id, request.sequence, request.message)

    def _pack(self, request: _Request, payload: bytes) -> bytes:
        ours, _, theirs, counter = request.addresses
        head = bytes([theirs, (request.net_fn | 1) << 2])
        body = bytes([ours, counter, request.command]) + payload
        message = head + _checksum(head) + body + _checksum(body)
        sequence = self._outbound_sequence if request.session_id else 0
        self._outbound_sequence += 1
        session = struct.pack("<BII", request.auth_type, sequence, request.session_id)
        if request.auth_type != AUTH_NONE:
            session += _md5_code(self._password or b"", request.session_id, sequence, message)
        return bytes([RMCP_VERSION, 0, 0xFF, IPMI_CLASS]) + session + bytes([len(message)]) + message


def _pong(packet: bytes) -> bytes:
    enterprise, _, tag, _, _ = ASF_HEADER.unpack(packet[4:12])
    presence = struct.pack(">IIBB6x", enterprise, 0, 0x81, 0)
    return packet[:4] + ASF_HEADER.pack(enterprise, ASF_PONG, tag, 0, len(presence)) + presence


def _parse(packet: bytes) -> _Request:
    auth_type, sequence, session_id = struct.unpack("<BII", packet[4:13])
    start = 13 if auth_type == AUTH_NONE else 29
    message = packet[start + 1 :]
    responder, net_fn, _, requester, counter, command = message[:6]
    return _Request(
        auth_type=auth_type,
        session_id=session_id,
        sequence=sequence,
        auth_code=packet[13:start],
        addresses=(responder, net_fn & 3, requester, counter),
        message=message,
        net_fn=net_fn >> 2,
        command=command,
        data=message[6:-1],
    )


def _checksum(data: bytes) -> bytes:
    return bytes([-sum(data) & 0xFF])


def _md5_code(password: bytes, session_id: int, sequence: int, message: bytes) -> bytes:
    """The authentication code of a packet: IPMI 2.0, section 22.17.1."""
    plain = password + struct.pack("<I", session_id) + message + struct.pack("<I", sequence) + password
    return hashlib.md5(plain, usedforsecurity=False).digest()
