"""Makes the .hex files beside it: one handshake and its first frames.

It follows the text of the Noise specification (revision 34) and docs/protocol.md, and shares no
code with the crate. It needs the package `cryptography`. The key is the bytes 0 to 31; the private
keys of the connection are 32 bytes 0x11 (reader) and 0x22 (producer).
"""

import hashlib
import hmac
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(chaining_key, data, outputs):
    temporary, last, out = mac(chaining_key, data), b"", []
    for i in range(outputs):
        last = mac(temporary, last + bytes([i + 1]))
        out.append(last)
    return out


def seal(key, nonce, associated, text):
    return AESGCM(key).encrypt(bytes(4) + struct.pack(">Q", nonce), text, associated)


class Symmetric:
    def __init__(self, name, prologue):
        # The name has as many bytes as a hash, so it is taken as it is.
        assert len(name) == 32
        self.h = self.ck = name
        self.mix_hash(prologue)

    def mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, data):
        self.ck, self.k = hkdf(self.ck, data, 2)

    def mix_key_and_hash(self, data):
        self.ck, middle, self.k = hkdf(self.ck, data, 3)
        self.mix_hash(middle)

    def encrypt_and_hash(self, text):
        # One message is sealed under each key, so the nonce is always 0.
        sealed = seal(self.k, 0, self.h, text)
        self.mix_hash(sealed)
        return sealed


def public(private):
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


KEY = bytes(range(32))
KEY_ID = mac(KEY, b"kvrail/2 key id ")[:8]
PSK = mac(KEY, b"kvrail/2 psk    ")
READER = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
PRODUCER = X25519PrivateKey.from_private_bytes(b"\x22" * 32)


def head(kind, rest, chosen):
    return b"kvrail\r\n" + struct.pack("<5H6x", kind, rest, 2, 2, chosen) + KEY_ID


def frame(key, nonce, message):
    sealed = seal(key, nonce, b"", message)
    return struct.pack("<H", len(sealed)) + sealed


hello_head = head(1, 48, 0)
state = Symmetric(b"Noise_NNpsk0_25519_AESGCM_SHA256", hello_head)
state.mix_key_and_hash(PSK)
state.mix_hash(public(READER))
state.mix_key(public(READER))
hello = hello_head + public(READER) + state.encrypt_and_hash(b"")

welcome_head = head(2, 72, 2)
state.mix_hash(public(PRODUCER))
state.mix_key(public(PRODUCER))
state.mix_key(READER.exchange(PRODUCER.public_key()))
welcome = welcome_head + public(PRODUCER) + state.encrypt_and_hash(welcome_head[8:])

of_reader, of_producer = hkdf(state.ck, b"", 2)
refused = head(3, 24, 0) + struct.pack("<H6xQ", 8, 1024) + bytes(8)

FILES = {
    "hello": hello,
    "welcome": welcome,
    "refused": refused,
    "reader": frame(of_reader, 0, b"the reader's first message") + frame(of_reader, 1, b""),
    "producer": frame(of_producer, 0, b"the producer's first message"),
}
for name, data in FILES.items():
    lines = [f"{at:04x}: {data[at:at + 16].hex(' ')}\n" for at in range(0, len(data), 16)]
    pathlib.Path(__file__).with_name(f"{name}.hex").write_text("".join(lines))
