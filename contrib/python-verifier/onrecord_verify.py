#!/usr/bin/env python3
"""Verify an OnRecord data directory or evidence bundle.

    onrecord_verify.py DIRECTORY|FILE [--vkey KEY]

An independent implementation of docs/format.md: one file, the standard library, no code of OnRecord's. It reads and
writes nothing else. KEY is the log's public key or a file that has it, from somewhere else than what is verified.
Disclosed content is opened if the package `cryptography` is there, and skipped (and said so) if it is not.

Ends with 0 if all is well, 3 if something was altered, 4 if something is missing, 2 if it was called wrongly.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import sys
import zlib

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    AESGCM = None

KINDS = {
    "genesis", "start", "stop", "recovery", "heartbeat", "session-open", "session-close", "intent", "outcome", "refused",
    "cancel", "erase", "hold", "witnesses", "export", "configuration", "issuer-key", "token", "revocation", "shared", "outpost",
    "approval", "passkey", "break-glass",
}
LEAF_MAX = 65_535
BUNDLE_MAX = 1 << 30
UNPACKED_MAX = 256 << 20


class Bad(Exception):
    """Something is not as it was recorded; `index` is the entry, if it is one."""

    def __init__(self, what, index=None):
        super().__init__(what)
        self.what, self.index = what, index


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_hash(leaf):
    return sha256(b"\0", leaf)


def node_hash(left, right):
    return sha256(b"\1", left, right)


def b64(text, length=None):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Bad("this is not base64") from error
    if base64.b64encode(data).decode() != (text if isinstance(text, str) else text.decode()) or length not in (None, len(data)):
        raise Bad("this is not base64 of the right length")
    return data


# --- Ed25519: RFC 8032, section 5.1 ---

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def point_add(a, b):
    """Adds points (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z: section 5.1.4."""
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, d - c, d + c, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_times(n, point):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = point_add(result, point)
        point = point_add(point, point)
        n >>= 1
    return result


def point_equal(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point_read(data):
    """Section 5.1.3; None if these bytes are no point."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point_read((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verify(key, message, signature):
    a, r = point_read(key), point_read(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or a is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return point_equal(point_times(s, BASE), point_add(r, point_times(k, a)))


# --- C2SP: verifier keys, signed notes, checkpoints, tlog-proofs ---


class Key:
    def __init__(self, text):
        match = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)", text.strip())
        if not match:
            raise Bad("this is no public key: it is one line, NAME+ID+KEY")
        self.text, self.name, data = text.strip(), match[1], b64(match[3], 33)
        self.id, self.key = bytes.fromhex(match[2]), data[1:]
        if data[0] != 1 or sha256(self.name.encode(), b"\n", data)[:4] != self.id:
            raise Bad("the public key's id is not its own")


def number(text):
    if not re.fullmatch(r"0|[1-9][0-9]{0,19}", text):
        raise Bad(f"{text!r} is not a number")
    return int(text)


def checkpoint(note, key):
    """(size, root) of a signed checkpoint."""
    text, separator, lines = note.rpartition("\n\n")
    text += "\n"
    if not separator or not lines.endswith("\n"):
        raise Bad("the checkpoint is no signed note")
    mine = 0
    for line in lines[:-1].split("\n"):
        match = re.fullmatch("— ([^\\s+]+) (\\S+)", line)
        if not match:
            raise Bad("the checkpoint has a line that is no signature")
        data = b64(match[2])
        if match[1] == key.name and data[:4] == key.id:
            if not ed25519_verify(key.key, text.encode(), data[4:]):
                raise Bad("the checkpoint's signature is wrong")
            mine += 1
    if not mine:
        raise Bad("the checkpoint is not signed by this key")
    origin, size, root = text.split("\n")[:3]
    if origin != key.name:
        raise Bad("the checkpoint is of another log")
    return number(size), b64(root, 32)


def split(count):
    return 1 << ((count - 1).bit_length() - 1)


def root_of(hashes):
    if not hashes:
        return sha256()
    # Complete subtrees, largest first, joined from the right.
    nodes = []
    for count, leaf in enumerate(hashes):
        node = leaf
        while count & 1:
            node, count = node_hash(nodes.pop(), node), count >> 1
        nodes.append(node)
    result = nodes.pop()
    while nodes:
        result = node_hash(nodes.pop(), result)
    return result


def inclusion_root(leaf, index, size, path):
    """The root that an inclusion proof leads to: RFC 9162, section 2.1.3.2."""
    node, last, result = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise Bad("the proof is too long")
        if node & 1 or node == last:
            result = node_hash(step, result)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, step)
        node, last = node >> 1, last >> 1
    if last:
        raise Bad("the proof is too short")
    return result


# --- Entries: sections 4 and 5 ---


def unique(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)


def decode(leaf, index):
    try:
        entry = json.loads(leaf.decode("utf-8"), object_pairs_hook=unique)
        if entry["v"] != 1 or entry["k"] not in KINDS or len(leaf) > LEAF_MAX or b"\n" in leaf:
            raise ValueError("its version or kind is not known")
        if not leaf.startswith(b'{"v":1,"k":"') or (index == 0) != (entry["k"] == "genesis"):
            raise ValueError("a log begins with genesis, and only there is one")
    except (ValueError, KeyError, TypeError) as error:
        raise Bad(f"it is no entry: {error}", index) from error
    return entry


class Sessions:
    """What entries of a session say of each other."""

    def __init__(self):
        self.open, self.ended, self.gaps, self.commands, self.outcomes = {}, set(), [], 0, {}

    def add(self, index, entry, digest):
        kind, session = entry["k"], entry.get("s")
        if kind not in ("session-open", "session-close", "intent", "outcome"):
            if kind == "stop" and self.open:
                self.gaps.append(f"entry {index}: the gateway stopped, and {len(self.open)} sessions are open")
            return
        if kind == "session-open":
            if session in self.open or session in self.ended:
                self.gaps.append(f"session {session} began twice")
            self.open[session] = {"hashes": [], "at": index, "n": 0, "intents": 0, "outcomes": 0, "running": set()}
        state = self.open.get(session)
        if state is None:
            self.gaps.append(f"entry {index} belongs to session {session}, which did not begin or had ended")
            return
        hashes = state["hashes"]
        if entry["n"] != state["n"]:
            self.gaps.append(f"session {session}: entry {entry['n']} stands where {state['n']} should")
        elif (b64(entry["prev"], 32) if entry["prev"] else None) != (hashes[-1] if hashes else None):
            raise Bad(f"it is not the entry that entry {index} names as the one before it", state["at"])
        if kind == "intent":
            state["intents"] += 1
            self.commands += 1
            state["running"].add(entry["id"])
            if entry["id"] != f"{session}.{state['intents']}":
                self.gaps.append(f"entry {index}: command {entry['id']} is not number {state['intents']}")
        elif kind == "outcome":
            state["outcomes"] += 1
            self.outcomes[entry["status"]] = self.outcomes.get(entry["status"], 0) + 1
            if entry["of"] not in state["running"]:
                self.gaps.append(f"entry {index}: an outcome of {entry['of']}, which was not running")
            state["running"].discard(entry["of"])
        elif kind == "session-close":
            for command in sorted(state["running"]):
                self.gaps.append(f"command {command} has no outcome, although its session ended")
            if (entry["intents"], entry["outcomes"]) != (state["intents"], state["outcomes"]):
                self.gaps.append(f"entry {index}: the counts of session {session} are not right")
            if "root" in entry and b64(entry["root"], 32) != root_of(hashes):
                raise Bad(f"the entries of session {session} are not those that it ended with", index)
            del self.open[session]
            self.ended.add(session)
        hashes.append(digest)
        state["n"], state["at"] = entry["n"] + 1, index

    def pending(self):
        return sum(len(state["running"]) for state in self.open.values())


# --- A data directory: sections 1 to 3 and 7 ---

CRC32C = []
for value in range(256):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    CRC32C.append(value)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def entries_of(body):
    """(leaf, whether its checksum is right) of each entry of a group's body, as far as it can be cut."""
    at = 0
    while at + 6 <= len(body):
        length, crc = struct.unpack_from(">HI", body, at)
        leaf = body[at + 6 : at + 6 + length]
        yield leaf, len(leaf) == length and crc32c(leaf) == crc
        at += 6 + length
    if at != len(body):
        yield b"", False


class Segment:
    def __init__(self, path, first):
        with open(path, "rb") as file:
            self.data = file.read()
        header, self.name = self.data[:4096], os.path.basename(path)
        magic, version, zero, self.number, self.first, self.origin, self.salt, self.chain = struct.unpack_from(
            ">16sIIQQ32s16s32s", header.ljust(4096, b"\0")
        )
        sound = magic == b"onrecord segment" and version == 1 and zero == 0 and not any(header[120:4092])
        if not sound or len(header) < 4096 or crc32c(header[:4092]) != struct.unpack_from(">I", header, 4092)[0]:
            raise Bad(f"{self.name}: the header is damaged", first)
        if self.first != first:
            raise Bad(f"{self.name}: it is not the segment that its name says", first)

    def group(self, at):
        """(first index, durable below, chain hash, body, end), or None if no valid group begins here."""
        if at + 64 > len(self.data):
            return None
        length, count, first, durable, chain, zero, crc = struct.unpack_from(">IIQQ32sII", self.data, at)
        end = at + 64 + length
        padded = -(-end // 8) * 8
        if not count or zero or 64 + length > 1 << 20 or padded > len(self.data) or any(self.data[end:padded]):
            return None
        body = self.data[at + 64 : end]
        if crc32c(self.salt + self.data[at : at + 60] + body) != crc:
            return None
        return first, durable, chain, body, count, padded

    def named(self, at, next_index):
        """What is wrong with the group that should begin here: the entry, if its own checksum tells."""
        length, count, first = struct.unpack_from(">IIQ", self.data.ljust(at + 16, b"\0"), at)
        if first == next_index and 64 + length <= 1 << 20:
            for place, (_, sound) in enumerate(entries_of(self.data[at + 64 : at + 64 + length])):
                if place < count and not sound:
                    return Bad(f"{self.name}, group at byte {at}: the entry's checksum is wrong", first + place)
        return Bad(f"{self.name}, byte {at}: the group is damaged or lost", next_index)


def data_directory(directory, key):
    sizes = {}
    note = read_text(os.path.join(directory, "checkpoint"), missing_ok=True)
    if note is not None:
        size, root = checkpoint(note, key)
        sizes[size] = root
    for size, root in head_slots(os.path.join(directory, "head")):
        if sizes.setdefault(size, root) != root:
            raise Bad(f"head and checkpoint have two roots for {size} entries")
    signed = max(sizes, default=0)
    names = sorted(name for name in os.listdir(os.path.join(directory, "log")) if name.endswith(".seg"))
    hashes, sessions, chain, torn = [], Sessions(), bytes(32), 0
    for position, name in enumerate(names):
        segment = Segment(os.path.join(directory, "log", name), int(name[:-4]))
        if segment.first != len(hashes) or segment.chain != chain or segment.number != position:
            raise Bad(f"{name}: it does not follow from what is before", len(hashes))
        if segment.origin != sha256(key.name.encode()):
            raise Bad(f"{name}: it belongs to another log", len(hashes))
        at = 4096
        while True:
            group = segment.group(at)
            if group is None or group[0] != len(hashes):
                break
            first, _, told, body, count, at = group
            leaves = []
            for place, (leaf, sound) in enumerate(entries_of(body)):
                if not sound:
                    raise Bad(f"{name}: the entry's checksum is wrong", first + place)
                leaves.append(leaf)
            chain = sha256(chain, *map(leaf_hash, leaves))
            if len(leaves) != count or chain != told:
                raise Bad(f"{name}: the group's entries are not those that were written", first)
            for leaf in leaves:
                entry, digest = decode(leaf, len(hashes)), leaf_hash(leaf)
                if entry["k"] == "genesis" and entry["origin"] != key.name:
                    raise Bad("the log has another name", 0)
                sessions.add(len(hashes), entry, digest)
                hashes.append(digest)
        rest = segment.data[at:].rstrip(b"\0")
        last = position + 1 == len(names)
        if (rest and not last) or len(hashes) < signed and last:
            raise segment.named(at, len(hashes))
        if rest:
            for place in range(at, len(segment.data), 8):
                later = segment.group(place) if any(segment.data[place : place + 64]) else None
                if later and later[1] > len(hashes):
                    raise segment.named(at, len(hashes))
            torn = len(rest)
    for size, root in sizes.items():
        if root_of(hashes[:size]) != root:
            raise Bad(f"the first {size} entries are not those that were signed")
    details = [f"log {key.name}, root {root_of(hashes).hex()}"]
    if torn:
        details.append(f"{torn} bytes of an unfinished group at the end, on which nothing relied")
    return f"{len(hashes)} entries as they were recorded, the first {signed} signed", details, sessions


def head_slots(path):
    try:
        with open(path, "rb") as file:
            data = file.read(1024)
    except FileNotFoundError:
        return
    newest = None
    for slot in (data[:512], data[512:]):
        lines = slot.split(b"\n")
        if len(lines) > 4 and lines[0] == b"onrecord/v1 head":
            told = b"".join(line + b"\n" for line in lines[:3])
            if lines[3] == b"%08x" % crc32c(told):
                found = number(lines[1].decode()), b64(lines[2], 32)
                newest = max(newest or found, found)
    if newest:
        yield newest


# --- A bundle: section 12 ---


def archive(data):
    """The files of the archive: [(name, content, whether its checksum is right)]."""
    files, directory, at, names = [], b"", 0, set()
    while data[at : at + 4] == b"PK\3\4":
        if at + 30 > len(data):
            raise Bad("the archive is cut off")
        crc, length = struct.unpack_from("<II", data, at + 14)
        name_length = struct.unpack_from("<H", data, at + 26)[0]
        name = data[at + 30 : at + 30 + name_length]
        shared = struct.pack("<H6xHIIIHxx", 10, 0x21, crc, length, length, name_length)
        if data[at + 4 : at + 30] != shared or len(name) != name_length or name_length > 128:
            raise Bad(f"the archive's header at byte {at} is not one that a bundle has")
        word = rb"[A-Za-z0-9_-][A-Za-z0-9._-]*"
        if not re.fullmatch(word + rb"(/" + word + rb")*", name) or name in names:
            raise Bad(f"the archive has a file with a name that it cannot have: {name!r}")
        names.add(name)
        content = data[at + 30 + name_length : at + 30 + name_length + length]
        if len(content) != length:
            raise Bad("the archive is cut off")
        directory += b"PK\1\2\x14\x03" + shared + bytes(6) + struct.pack("<II", 0x81A40000, at) + name
        files.append((name.decode(), content, zlib.crc32(content) == crc))
        at += 30 + name_length + length
    end = struct.pack("<4s4xHHIIxx", b"PK\5\6", len(files), len(files), len(directory), at)
    if data[at:] != directory + end:
        raise Bad("the archive's directory is not that of its files, or something follows after it")
    return files


def seal_block(key):
    return hashlib.sha512(b"onrecord/v1 seal" + key).digest()


CROCKFORD = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}


def session_bytes(text):
    value = 0
    for digit in text:
        value = value << 5 | CROCKFORD[digit]
    return value.to_bytes(16, "big")


class Bundle:
    def __init__(self, data, key):
        if len(data) > BUNDLE_MAX:
            raise Bad("a bundle has at most 1 GiB")
        self.list = archive(data)
        self.files = {name: content for name, content, _ in self.list}
        self.key, self.notes = key, []

    def text(self, name):
        try:
            return self.files[name].decode("utf-8")
        except KeyError:
            raise Bad(f"{name} is missing") from None
        except UnicodeDecodeError:
            raise Bad(f"{name} is not text") from None

    def lines(self, name):
        data = self.files.get(name, b"")
        if data and not data.endswith(b"\n"):
            raise Bad(f"{name} is cut off")
        return data.split(b"\n")[:-1]

    def verify(self):
        own = Key(self.text("vkey"))
        if self.key.text != own.text:
            raise Bad("vkey: the bundle's key is not the one that you gave")
        # The entries come first, so that an altered one is named, and not the file around it.
        entries = self.read_entries()
        manifest = self.manifest()
        size, root = checkpoint(self.text("checkpoint"), self.key)
        if (manifest["origin"], manifest["size"]) != (self.key.name, size):
            raise Bad("manifest.json is about another log or size than the checkpoint")
        sessions, last = Sessions(), {}
        for index, digest, entry in entries:
            sessions.add(index, entry, digest)
            if entry["k"] in ("session-open", "session-close", "intent", "outcome"):
                last[entry["s"]] = index, digest
        if not entries or entries[0][0] != 0 or entries[0][2]["vkey"] != self.key.text:
            raise Bad("the bundle does not begin with the first entry of its log")
        if entries[-1][0] >= size or self.proven_root(entries, size) != root:
            raise Bad("the entries are not those of the signed log")
        self.session_proofs(last, size, root)
        indexes = [index for index, _, entry in entries if entry["k"] in ("session-open", "session-close", "intent", "outcome")]
        if not indexes or manifest["range"] != [indexes[0], indexes[-1]]:
            raise Bad("manifest.json does not say the range of the bundle's sessions")
        details = [f"log {self.key.name}, root {root.hex()}"] + self.content(manifest, [entry for _, _, entry in entries])
        return f"{len(entries)} entries as they were recorded, proven in the signed log of {size}", details, sessions

    def manifest(self):
        names = [name for name, _, _ in self.list]
        if names[:2] != ["README.txt", "manifest.json"] or names[2:] != sorted(names[2:]):
            raise Bad("the files are not in the order that a bundle has")
        if not all(sound for name, _, sound in self.list if name == "manifest.json"):
            raise Bad("manifest.json was altered: its checksum is wrong")
        try:
            manifest = json.loads(self.text("manifest.json"), object_pairs_hook=unique)
            if (manifest["format"], manifest["version"]) != ("onrecord evidence", 1):
                raise Bad("manifest.json has a version that this program does not know")
            listed = [(file["name"], file["bytes"], file["sha256"]) for file in manifest["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Bad("manifest.json has not the form of a manifest") from error
        if [name for name, _, _ in listed] != [name for name in names if name != "manifest.json"]:
            raise Bad("manifest.json does not name the files that are there")
        for name, length, digest in listed:
            content = self.files[name]
            if (len(content), sha256(content).hex()) != (length, digest):
                raise Bad(f"{name} was altered: it is not the file that the manifest names")
        if not all(sound for _, _, sound in self.list):
            raise Bad("a checksum of the archive is wrong")
        return manifest

    def read_entries(self):
        entries, before = [], -1
        self.text("entries.txt")
        for line in self.lines("entries.txt"):
            words = line.split(b" ", 2)
            if len(words) != 3:
                raise Bad("entries.txt: a line has an index, a hash and an entry")
            index, digest = number(words[0].decode("ascii", "replace")), leaf_hash(words[2])
            if base64.b64encode(digest) != words[1]:
                raise Bad("it was altered: its hash is not the one that is written beside it", index)
            if index <= before:
                raise Bad("the entries are not in the order of their indexes", index)
            entries.append((index, digest, decode(words[2], index)))
            before = index
        return entries

    def proven_root(self, entries, size):
        hashes = iter([b64(line, 32) for line in self.lines("proof.txt")])

        def subtree(begin, end, inside):
            if not inside:
                try:
                    return next(hashes)
                except StopIteration:
                    raise Bad("proof.txt has too few hashes") from None
            if end - begin == 1:
                return inside[0][1]
            middle = begin + split(end - begin)
            cut = next((at for at, entry in enumerate(inside) if entry[0] >= middle), len(inside))
            left = subtree(begin, middle, inside[:cut])
            return node_hash(left, subtree(middle, end, inside[cut:]))

        root = subtree(0, size, entries)
        if next(hashes, None) is not None:
            raise Bad("proof.txt has too many hashes")
        return root

    def session_proofs(self, last, size, root):
        expected = {f"sessions/{session}.tlog-proof": where for session, where in last.items()}
        if set(expected) != {name for name in self.files if name.startswith("sessions/")}:
            raise Bad("sessions/ has not exactly one proof for each session")
        for name, (index, digest) in expected.items():
            head, _, note = self.text(name).partition("\n\n")
            lines = head.split("\n")
            if lines[:2] != ["c2sp.org/tlog-proof@v1", f"index {index}"] or note != self.text("checkpoint"):
                raise Bad(f"{name} is not the proof of entry {index} under the bundle's checkpoint")
            if inclusion_root(digest, index, size, [b64(line, 32) for line in lines[2:]]) != root:
                raise Bad(f"{name} does not prove entry {index}")

    def content(self, manifest, entries):
        keys = self.read_keys()
        selected = {f"{item['session']}.{n}" for item in manifest["commands"] for first, last in item["ordinals"]
                    for n in range(first, last + 1)}
        erased = {(entry["session"], n) for entry in entries if entry["k"] == "erase" for n in entry.get("fields", [None])}
        fields = []
        for entry in entries:
            if entry["k"] == "intent":
                fields += [(entry["id"], "statement", entry["text"]), (entry["id"], "parameters", entry["parameters"])]
            elif entry["k"] == "outcome":
                fields.append((entry["of"], "message", entry["message"]))
                if "transcript" in entry:
                    fields.append((entry["of"], "output", entry["transcript"]["content"]))
                if "file" in entry:
                    fields.append((entry["of"], "output", entry["file"]["sha256"]))
        missing = selected - {command for command, _, _ in fields}
        if missing:
            raise Bad(f"command {min(missing)} was selected, and is not in the bundle")

        def ids(command, field):
            session = command.partition(".")[0]
            if "blob" in field:
                return [(session, field["blob"]["f"]), (session, field["blob"]["head"]["f"])]
            return [(session, field["sealed"]["f"])] if "sealed" in field else []

        kept_back = {id for command, kind, field in fields if kind in manifest["withheld"] for id in ids(command, field)}
        used, blobs, counts = set(), set(), {}
        for command, kind, field in fields:
            mine = ids(command, field)
            used.update(mine)
            if not mine or command not in selected:
                continue
            if "blob" in field and not any(id in kept_back for id in mine):
                blobs.add(field["blob"]["sha256"])
            if all(id in keys for id in mine):
                self.open(command, kind, field, keys)
                state = "disclosed"
            elif (mine[0][0], None) in erased or any(id in erased for id in mine):
                state = "erased"
            elif any(id in kept_back for id in mine):
                state = "withheld"
            else:
                raise Bad(f"the key of the {kind} of command {command} is missing, and nothing says why")
            counts[state] = counts.get(state, 0) + 1
        if set(keys) - used:
            raise Bad("keys.txt has a key that opens nothing in the bundle")
        if {name[6:] for name in self.files if name.startswith("blobs/")} - blobs:
            raise Bad("blobs/ has a blob that no selected command names")
        how = "" if AESGCM else " (commitments checked; not opened, for there is no package `cryptography`)"
        told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
        return [f"{len(selected)} commands selected; of their content: {told}{how}"]

    def read_keys(self):
        keys = {}
        for line in self.lines("keys.txt"):
            words = line.decode("ascii", "replace").split(" ")
            if len(words) != 3 or not re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", words[0]):
                raise Bad("keys.txt: a line has a session, a number and a key")
            id = words[0], number(words[1])
            if keys and id <= list(keys)[-1]:
                raise Bad("keys.txt is not in order")
            keys[id] = b64(words[2], 32)
        return keys

    def open(self, command, kind, field, keys):
        session = command.partition(".")[0]

        def key_of(part):
            block = seal_block(keys[session, part["f"]])
            if not hmac.compare_digest(block[32:], b64(part["c"], 32)):
                raise Bad(f"the key of the {kind} of command {command} is not the one that the entry commits to")
            return block[:32]

        def sealed(part):
            key, data = key_of(part), b64(part["x"])
            if not AESGCM:
                return None
            associated = b"onrecord/v1 in entry" + session_bytes(session) + struct.pack(">Q", part["f"])
            content = AESGCM(key).decrypt(bytes(12), data, associated)
            if len(content) != part["l"]:
                raise Bad(f"the {kind} of command {command} has not the length that the entry says")
            return content

        try:
            if "sealed" in field:
                sealed(field["sealed"])
                return
            blob = field["blob"]
            head, key, data = sealed(blob["head"]), key_of(blob), self.files.get("blobs/" + blob["sha256"])
            if data is None or sha256(data).hex() != blob["sha256"] or len(data) != blob["bytes"]:
                raise Bad(f"the blob of the {kind} of command {command} is missing or another")
            if not AESGCM:
                return
            associated = b"onrecord/v1 in blob " + session_bytes(session) + struct.pack(">Q", blob["f"])
            content, step = b"", 65_536 + 16
            for chunk in range(max(1, -(-len(data) // step))):
                nonce = bytes(7) + struct.pack(">IB", chunk, (chunk + 1) * step >= len(data))
                content += AESGCM(key).decrypt(nonce, data[chunk * step : (chunk + 1) * step], associated)
            if blob.get("packing") == "deflate":
                content = zlib.decompressobj(-15).decompress(content, UNPACKED_MAX)
            if len(content) != blob["l"] or not content.startswith(head):
                raise Bad(f"the {kind} of command {command} is not what the entry says")
        except Bad:
            raise
        except Exception as error:
            if AESGCM and isinstance(error, InvalidTag):
                raise Bad(f"the {kind} of command {command} does not open: it was altered") from error
            raise


# --- The command line ---


def read_text(path, missing_ok=False):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        if missing_ok:
            return None
        raise Bad(f"{path} is missing") from None
    except UnicodeDecodeError:
        raise Bad(f"{path} is not text") from None


def given_key(text):
    return Key(read_text(text) if os.path.exists(text) else text)


def run(arguments):
    parser = argparse.ArgumentParser(description="Verify an OnRecord data directory or evidence bundle.")
    parser.add_argument("record", help="a data directory or an evidence bundle")
    parser.add_argument("--vkey", help="the log's public key, or a file that has it, from somewhere else")
    options = parser.parse_args(arguments)
    try:
        key = given_key(options.vkey) if options.vkey else None
    except Bad as error:
        parser.error(f"--vkey: {error.what}")
    try:
        if os.path.isdir(options.record):
            key = key or Key(read_text(os.path.join(options.record, "vkey")))
            said, details, sessions = data_directory(options.record, key)
        else:
            with open(options.record, "rb") as file:
                bundle = Bundle(file.read(BUNDLE_MAX + 1), key)
            bundle.key = key or Key(bundle.text("vkey"))
            said, details, sessions = bundle.verify()
    except OSError as error:
        parser.error(str(error))
    except Bad as error:
        where = "" if error.index is None else f"entry {error.index}: "
        print(f"integrity     VIOLATED  {where}{error.what}")
        print("completeness  unknown   cannot be told while integrity is violated")
        return 3
    print(f"integrity     ok        {said}")
    for detail in details:
        print(f"                        {detail}")
    if not options.vkey:
        print("                        checked with the record's own key; --vkey KEY checks with one from elsewhere")
    if sessions.gaps:
        print(f"completeness  VIOLATED  {len(sessions.gaps)} gaps")
        for gap in sessions.gaps[:100]:
            print(f"                        {gap}")
        return 4
    pending = sessions.pending()
    state = f"{pending} still running" if pending else "each with its outcome"
    print(f"completeness  ok        {sessions.commands} commands, {state}; {len(sessions.ended)} sessions, {len(sessions.open)} open")
    print("coverage      what went around the gateway is in no record")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
