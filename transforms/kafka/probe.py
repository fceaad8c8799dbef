"""Find out what listens at an address, before the client that would only say "timed out".

Two requests that Kafka answers before any login (ApiVersions and SaslHandshake) tell whether the
port is a broker's, whether it speaks TLS, and which logins it takes; then the login itself is
tried, because kafka-python 3.0 repeats a refused one until its time is over.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time

from kafka.net.sasl import get_sasl_mechanism

from group_scores.stores.errors import AddressError, GroupScoresError, ServiceUnavailableError
from group_scores.stores.secrets import NO_PASSWORD, how_to_set, source_of
from group_scores.transforms.kafka.address import PASSWORD_VARIABLE, KafkaAddress, host_port

_METADATA, _SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 3, 17, 18, 36
_CORRELATION = 0x6B61666B  # what a Kafka answer begins with, when it answers us
_UNSUPPORTED_MECHANISM, _ILLEGAL_SASL_STATE = 33, 34
_LARGEST_ANSWER = 1 << 20


class _NotKafkaError(Exception):
    """What came back is no answer to what was asked."""


def probe(address: KafkaAddress, deadline: float) -> str:
    """Return the first of the servers, `HOST:PORT`, that is a broker and fits the address.

    `deadline` is by `time.monotonic`; each server gets its share of the time. Raises AddressError
    where the address does not fit what is there, ServiceUnavailableError where nothing answers.
    """
    failures: list[GroupScoresError] = []
    for number, server in enumerate(address.bootstrap):
        left_s = (deadline - time.monotonic()) / (len(address.bootstrap) - number)
        try:
            _probe_one(address, server, max(0.1, left_s))
            return server
        except GroupScoresError as failure:
            failures.append(failure)
    # A wrong address is the more useful thing to hear of than a server that is down.
    raise next((f for f in failures if isinstance(f, AddressError)), failures[0])


def _probe_one(address: KafkaAddress, server: str, timeout_s: float) -> None:
    stop = time.monotonic() + timeout_s
    sock = _connect(server, timeout_s)
    with sock:
        if address.encrypts:
            sock = _encrypt(sock, address, server)
        with sock:
            sock.settimeout(max(0.1, stop - time.monotonic()))
            try:
                _check_broker(server, _ask(sock, _API_VERSIONS, 0, b""))
                wanted = _text(address.mechanism or "PLAIN")
                _check_login(address, server, _ask(sock, _SASL_HANDSHAKE, 1, wanted))
                if address.authenticates:
                    _log_in(sock, address, server)
            except TimeoutError:
                raise ServiceUnavailableError(
                    f"{server} accepts connections and does not answer; check that it is a Kafka "
                    "broker and that it is well"
                ) from None
            except ssl.SSLError as error:
                raise _ended_by(server, error) from None
            except (_NotKafkaError, OSError):
                raise _not_kafka(server, address, stop) from None


def _connect(server: str, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection(host_port(server), timeout_s)
    except socket.gaierror:
        raise ServiceUnavailableError(
            f"the host of {server} is not known here; check the name in the address"
        ) from None
    except TimeoutError:
        raise ServiceUnavailableError(
            f"nothing answers at {server} in {timeout_s:.0f} s; check the address, and the "
            "firewall between here and there"
        ) from None
    except OSError as error:
        raise ServiceUnavailableError(
            f"cannot connect to Kafka at {server} ({error.strerror}); start the broker, or "
            "correct the address"
        ) from None


def _encrypt(sock: socket.socket, address: KafkaAddress, server: str) -> ssl.SSLSocket:
    config = address.client_config()
    plain = address.security.replace("SSL", "PLAINTEXT")
    try:
        context = ssl.create_default_context(cafile=config.get("ssl_cafile"))
        if address.cert:
            context.load_cert_chain(address.cert, address.key, password=NO_PASSWORD)
    except (ssl.SSLError, OSError) as error:
        raise AddressError(
            f"a file of ca=, cert= or key= for {address} is not what it should be "
            f"({error}); they are PEM files, and the key has no password"
        ) from None
    try:
        return context.wrap_socket(sock, server_hostname=host_port(server)[0])
    except ssl.SSLCertVerificationError as error:
        raise AddressError(
            f"the certificate of {server} is not accepted ({error.verify_message}); give the "
            "certificate of its authority as ca=, and the host as the certificate names it"
        ) from None
    except TimeoutError:
        raise ServiceUnavailableError(
            f"{server} accepts connections and does not answer; if it speaks no TLS, write "
            f"security={plain}"
        ) from None
    except (ssl.SSLError, OSError) as error:
        if "ALERT" in (getattr(error, "reason", None) or ""):
            raise _ended_by(server, error) from None
        raise AddressError(f"{server} does not speak TLS; write security={plain}") from None


def _ended_by(server: str, error: OSError) -> AddressError:
    # Under TLS 1.3 a missing client certificate shows only after the handshake.
    reason = str(getattr(error, "reason", None) or error).lower().replace("_", " ")
    return AddressError(
        f"{server} ends the TLS connection ({reason}); it may want a client certificate: give "
        "cert= and key="
    )


def _ask(sock: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """Send one request and return the body of the answer."""
    header = struct.pack(">hhi", api, version, _CORRELATION) + _text("group-scores")
    sock.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
    size, correlation = struct.unpack(">ii", _read(sock, 8))
    if correlation != _CORRELATION or not 4 <= size <= _LARGEST_ANSWER:
        raise _NotKafkaError
    return _read(sock, size - 4)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise _NotKafkaError
        data += chunk
    return data


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _not_kafka(server: str, address: KafkaAddress, stop: float) -> AddressError:
    if not address.encrypts and _speaks_tls(server, stop):
        secure = address.security.replace("PLAINTEXT", "SSL")
        return AddressError(f"{server} wants TLS; write security={secure}")
    return AddressError(
        f"{server} answers, and not as Kafka does; check the port (a broker's is often 9092)"
    )


def _speaks_tls(server: str, stop: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        left_s = max(0.1, stop - time.monotonic())
        with (
            socket.create_connection(host_port(server), left_s) as sock,
            context.wrap_socket(sock),
        ):
            return True
    except ssl.SSLError as error:
        # A listener that wants a client certificate ends the handshake with an alert of TLS.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _check_broker(server: str, answer: bytes) -> None:
    (count,) = struct.unpack_from(">i", answer, 2)
    keys = {key for key, _, _ in struct.iter_unpack(">hhh", answer[6 : 6 + 6 * count])}
    if _METADATA not in keys:
        raise AddressError(f"{server} is a Kafka controller; give the address of a broker")


def _log_in(sock: socket.socket, address: KafkaAddress, server: str) -> None:
    login = get_sasl_mechanism(address.mechanism)(**address.client_config())
    try:
        while not login.is_done():
            token = login.auth_bytes()
            answer = _ask(sock, _SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
            error, text_size = struct.unpack_from(">hh", answer)
            if error:
                break
            login.receive(answer[8 + max(0, text_size) :])
        if login.is_authenticated():
            return
    except ValueError:  # SCRAM: the server's proof is wrong
        pass
    raise AddressError(
        f"{server} refuses user {address.username!r}; check username= and "
        f"{source_of(PASSWORD_VARIABLE)}"
    )


def _check_login(address: KafkaAddress, server: str, answer: bytes) -> None:
    (error,) = struct.unpack_from(">h", answer)
    if error == _ILLEGAL_SASL_STATE:
        if address.authenticates:
            open_ = address.security.removeprefix("SASL_")
            raise AddressError(f"{server} takes no login; write security={open_} and no username=")
        return
    if not address.authenticates:
        login = f"SASL_{address.security}"
        raise AddressError(
            f"{server} wants a login; write security={login}&username=NAME, and "
            f"{how_to_set(PASSWORD_VARIABLE)}"
        )
    if error == _UNSUPPORTED_MECHANISM:
        raise AddressError(
            f"{server} does not take mechanism={address.mechanism} (it takes "
            f"{', '.join(_texts(answer[2:]))})"
        )


def _texts(data: bytes) -> list[str]:
    (count,) = struct.unpack_from(">i", data)
    texts, at = [], 4
    for _ in range(count):
        (size,) = struct.unpack_from(">h", data, at)
        texts.append(data[at + 2 : at + 2 + size].decode(errors="replace"))
        at += 2 + size
    return texts
