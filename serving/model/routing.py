"""Follows ``served.json``: which version answers a request that names none, whichever version's process Triton hands it to.

Triton itself gives such a request to the highest version it holds, also while that one is only being verified. Here every process looks
at the policy file every 20 ms, opens the versions that it names away from the answer's path, and then flips by one assignment: a roll-back is one
write of that file. A policy that cannot be followed (a version is missing, a file of it was changed) leaves the last good one standing.
"""

import hashlib
import json
import os
import sys
import threading
import time
import uuid

from pairing import Pairing

POLICY = "served.json"  # MODEL.served.json beside the model's folder
LOOK_SECONDS = 0.02
AGAIN_SECONDS = 1.0  # first wait before a policy that could not be followed is tried again; it doubles
LONGEST_SECONDS = 60.0
PINNED = ("kfloop-golden", "kfloop-alive")  # ids of requests that are about the process's own version
INSIDE = ("mean", "std", "facts")  # constants of the training rows: the graph has them, no tensor is made with them
STABLE, CANARY, SHADOW = "stable", "canary", "shadow"


class Policy:
    """What ``served.json`` says, with the versions it names opened.

    Args:
        stable: The version that answers.
        rollout: Section ``rollout`` of the file; null for none.
        challenger: Its version, opened.
    """

    def __init__(self, stable, rollout=None, challenger=None):
        self.stable = stable
        self.mode, self.share, self.salt, self.pairing, self.alike = "", 0.0, "", None, True
        if rollout:
            self.mode, self.share, self.salt = str(rollout["mode"]), float(rollout["share"]), str(rollout["salt"])
            self.pairing = Pairing(stable, challenger)
            # What was encoded for the champion means the same to a challenger with the same encoder; to any other only raw rows go.
            self.alike = _encoder(stable.folder) == _encoder(challenger.folder)


class Router:
    """The policy of one process, kept up to date by a thread of its own.

    Args:
        own: The version of this process.
        open_version: Opens the version in a folder.
    """

    def __init__(self, own, open_version):
        self._own = own
        self._open = open_version
        self._folder = os.path.dirname(own.folder)
        self._path = f"{self._folder}.{POLICY}"
        self._versions = {own.number: own}
        self._seen = self._mark()
        # A process that cannot tell who answers must not be loaded: it would answer with a version nobody decided on.
        self.policy = self._read() if self._seen else Policy(own)
        threading.Thread(target=self._follow, name="kfloop-routing", daemon=True).start()

    def choose(self, policy, request):
        """Version and route of a request, and its id, made up where it has none and one is needed."""
        own, identity = self._own, request.request_id()
        if policy.stable is own and not policy.mode:
            return own, STABLE, identity
        if identity.startswith(PINNED):
            return own, STABLE, identity
        told = json.loads(request.parameters() or "{}")
        if told.get("pinned") is True:
            return own, STABLE, identity
        if not policy.mode:
            return policy.stable, STABLE, identity
        identity = identity or uuid.uuid4().hex
        key = str(told.get("key") or told.get("x-route-key") or identity)
        return policy.stable, policy.mode if fraction(policy.salt, key) < policy.share else STABLE, identity

    def _follow(self):
        wait, again = AGAIN_SECONDS, None
        while True:
            time.sleep(LOOK_SECONDS)
            mark = self._mark()
            if mark is None or (mark == self._seen and (again is None or time.monotonic() < again)):
                continue
            wait = wait if mark == self._seen else AGAIN_SECONDS
            self._seen = mark
            try:
                self.policy = self._read()
                again = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the last good policy stands
                sys.stderr.write(f"kfloop: {self._path} cannot be followed, the policy before stands: {error!r}\n")
                again, wait = time.monotonic() + wait, min(2 * wait, LONGEST_SECONDS)

    def _mark(self):
        """What changes whenever the file does; null while there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self):
        """The policy, every version it names opened. The versions before are let go when the last request that uses them is answered."""
        with open(self._path, encoding="utf-8") as stream:
            raw = json.load(stream)
        rollout = raw.get("rollout")
        named = {int(raw["default"]), *map(int, raw["versions"])} | ({int(rollout["challenger"])} if rollout else set())
        versions = {self._own.number: self._own}
        needed = {int(raw["default"])} | ({int(rollout["challenger"])} if rollout else set())
        for number in named - set(versions):
            known = self._versions.get(number)
            try:
                versions[number] = known or self._open(os.path.join(self._folder, str(number)))
            except Exception as error:
                if number in needed:
                    raise
                sys.stderr.write(f"kfloop: version {number} cannot be opened, and nobody asks it now: {error!r}\n")
        policy = Policy(versions[int(raw["default"])], rollout, rollout and versions[int(rollout["challenger"])])
        self._versions = versions
        return policy


def fraction(salt, key):
    """Where a key lies in [0, 1): the same for the same salt and key, in every process and for ever.

    Not crc32: of keys that differ in their last letters only (``user0``, ``user1``) it puts 6 % where 10 % are asked for.
    """
    digest = hashlib.blake2b(f"{salt}{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def _encoder(folder):
    """What stands between a raw example and the tensors; null where the version does not say."""
    try:
        with open(os.path.join(folder, "encoder.json"), encoding="utf-8") as stream:
            told = json.load(stream)
    except OSError:
        return None
    return {name: value for name, value in told.items() if name not in INSIDE}
