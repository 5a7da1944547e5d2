#!/usr/bin/env python3
"""Checks vectors.json with nothing of this project: Python's `cryptography` package (47 or later) and plain integers.

    python3 tunnel/tests/check_vectors.py
"""

import hashlib, hmac, json, pathlib

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

V = json.loads((pathlib.Path(__file__).parent / "vectors.json").read_text())
unhex = bytes.fromhex


def extract(salt, ikm):
    return hmac.digest(salt, ikm, "sha256")


def expand(prk, info, length):
    out, block, n = b"", b"", 1
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([n]), "sha256")
        out, n = out + block, n + 1
    return out[:length]


def lv(x):
    return len(x).to_bytes(4, "big") + x


def sha256(x):
    return hashlib.sha256(x).digest()


def check(name, got, want):
    assert got == want, f"{name}: {got!r} is not {want!r}"
    print("ok", name)


# Ed25519's group, as in RFC 8032, affine and slow.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(p, q):
    (x1, y1), (x2, y2) = p, q
    k = D * x1 * x2 * y1 * y2
    return ((x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P)


def mul(p, n):
    out = (0, 1)
    while n:
        if n & 1:
            out = add(out, p)
        p, n = add(p, p), n >> 1
    return out


def decode(data):
    y = int.from_bytes(data, "little") & (2**255 - 1)
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if x * x % P != xx:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == xx
    return (P - x if x & 1 != data[31] >> 7 else x, y)


def encode(p):
    return (p[1] | (p[0] & 1) << 255).to_bytes(32, "little")


def arbitrary_element(seed):
    y = int.from_bytes(expand(extract(b"", seed), b"SPAKE2 arbitrary element", 48), "big") % P
    while True:
        try:
            point = mul(decode(y.to_bytes(32, "little")), 8)
            if point != (0, 1):
                return point
        except AssertionError:
            pass
        y = (y + 1) % P


BASE = decode(bytes([0x58]) + bytes([0x66]) * 31)
M, N = arbitrary_element(b"M"), arbitrary_element(b"N")

i = V["input"]
password = i["code"].encode()
pw = int.from_bytes(expand(extract(b"", password), b"SPAKE2 pw", 48), "big") % L
wide = lambda field: int.from_bytes(unhex(i[field]), "little") % L
x, y = wide("agent_spake2_scalar_wide_le"), wide("client_spake2_scalar_wide_le")
pa = encode(add(mul(BASE, x), mul(M, pw)))
pc = encode(add(mul(BASE, y), mul(N, pw)))
check("spake2 message a", b"A" + pa, unhex(V["spake2"]["message_a"]))
check("spake2 message c", b"B" + pc, unhex(V["spake2"]["message_c"]))
sid = unhex(i["session_id"])
id_a, id_b = b"mykube/2 agent" + sid, b"mykube/2 client" + sid
k = encode(mul(add(decode(pc), mul(N, L - pw)), x))
k_code = sha256(sha256(password) + sha256(id_a) + sha256(id_b) + pa + pc + k)
check("k_code", k_code, unhex(V["spake2"]["k_code"]))

agent = X25519PrivateKey.from_private_bytes(unhex(i["agent_x25519_private"]))
client = X25519PublicKey.from_public_bytes(unhex(V["shared"]["x25519_public_client"]))
x25519 = agent.exchange(client)
check("x25519", x25519, unhex(V["shared"]["x25519"]))


def b64(text):
    import base64
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


seed = MLKEM768PrivateKey.from_seed_bytes(unhex(i["agent_mlkem768_seed_d_z"]))
check("ek", seed.public_key().public_bytes_raw(), b64(V["hello"]["agent_json"]["mlkem768"]))
mlkem = seed.decapsulate(b64(V["hello"]["client_json"]["mlkem768"]))
check("mlkem768", mlkem, unhex(V["shared"]["mlkem768"]))

frames = [unhex(V["hello"][end]) for end in ("agent_frame", "client_frame")]
for frame, kind, end in zip(frames, (1, 2), ("agent_json", "client_json")):
    assert frame[0] == kind and json.loads(frame[1:]) == V["hello"][end]
r = unhex(i["agent_r"])
check("commit", sha256(b"mykube/2 commit" + r), unhex(V["hello"]["commit"]))
th = sha256(b"mykube/2 transcript" + lv(frames[0]) + lv(frames[1]))
check("th", th, unhex(V["th"]))
prk = extract(k_code, x25519 + mlkem)
check("prk", prk, unhex(V["prk"]))
for label, want in V["e"].items():
    check(f"E({label})", expand(prk, b"mykube/2 " + label.encode() + b"\0" + th, 32), unhex(want))
E = {label: unhex(key) for label, key in V["e"].items()}
check("tag_c", hmac.digest(E["confirm c"], th, "sha256"), unhex(V["tag_c"]))
check("tag_a", hmac.digest(E["confirm a"], th + r, "sha256"), unhex(V["tag_a"]))
bits = int.from_bytes(expand(prk, b"mykube/2 words\0" + th + r, 6), "big")
print("   indices of the words:", [bits >> (48 - 11 * n) & 0x7FF for n in (1, 2, 3, 4)], V["words"])


def check_records(secret, traffic, records):
    key, iv = expand(secret, b"mykube/2 key", 32), expand(secret, b"mykube/2 iv", 12)
    check("key", key, unhex(traffic["key"]))
    check("iv", iv, unhex(traffic["iv"]))
    for record in records:
        nonce = (int.from_bytes(iv, "big") ^ record["seq"]).to_bytes(12, "big")
        frame = b"\x05" + AESGCM(key).encrypt(nonce, unhex(record["plaintext"]), b"\x05")
        check(f"record {record['seq']}", frame, unhex(record["frame"]))


R = V["records"]
check_records(E["traffic c"], V["traffic_client"], [R["handshake_client"], R["data_client"], R["rekey_client"]])
check_records(E["traffic a"], V["traffic_agent"], [R["handshake_agent"]])
after = expand(E["traffic c"], b"mykube/2 next", 32)
check("next secret", after, unhex(V["next_traffic_client"]["secret"]))
check_records(after, V["next_traffic_client"], [V["next_records"]["client"]])

for attach, c, a in zip(V["attaches"], i["attach_client_x25519_private"], i["attach_agent_x25519_private"], strict=True):
    n = attach["n"].to_bytes(8, "big")
    c, a = (X25519PrivateKey.from_private_bytes(unhex(key)) for key in (c, a))
    head = b"\x03" + sid + n + c.public_key().public_bytes_raw()
    attach_client = head + hmac.digest(E["attach c"], head, "sha256")
    check("attach_client", attach_client, unhex(attach["attach_client"]))
    head = b"\x04" + n + a.public_key().public_bytes_raw()
    attach_agent = head + hmac.digest(E["attach a"], lv(attach_client) + head, "sha256")
    check("attach_agent", attach_agent, unhex(attach["attach_agent"]))
    shared = a.exchange(c.public_key())
    check("x25519", shared, unhex(attach["x25519"]))
    th_n = sha256(b"mykube/2 attach" + lv(attach_client) + lv(attach_agent))
    check("th_n", th_n, unhex(attach["th"]))
    prk_n = extract(E["resume"], shared)
    check("PRK_n", prk_n, unhex(attach["prk"]))
    proof = r + unhex(V["tag_a"]) if attach["n"] == 1 else b""
    for end, label, proof in (("client", "c", b""), ("agent", "a", proof)):
        secret = expand(prk_n, b"mykube/2 traffic " + label.encode() + b"\0" + th_n, 32)
        check(f"traffic {label}", secret, unhex(attach[f"traffic_{end}"]["secret"]))
        body = attach[f"received_by_{end}"].to_bytes(8, "big") + proof
        plaintext = b"\x01" + lv(body)
        plaintext += bytes(-len(plaintext) % 64)
        first = attach[f"first_{end}"]
        check("first record", plaintext, unhex(first["plaintext"]))
        assert first["seq"] == 0
        check_records(secret, attach[f"traffic_{end}"], [first])
print("every value agrees")
