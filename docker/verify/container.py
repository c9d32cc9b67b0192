"""A container of the image, as an engine would run it with compose's restrictions, less one.

Namespaces of its own for mounts and processes, the root file system mounted read-only, a tmpfs at
/tmp and nowhere else, the image's user without privileges, the image's environment and no other.
The network is the machine's own: there is no engine that could make another. Knows nothing of
what the image serves.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

SETUP = r"""
set -eu
root=$1 library=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
[ -z "$library" ] || mount --bind "$library" "$root/library"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev tmpfs "$root/tmp"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,size=64k,nosuid tmpfs "$root/dev"
for node in null zero full random urandom; do
  touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"
done
exec chroot "$root" "$@"
"""
"""Run as PID 1 of new namespaces; becomes the program itself."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Image:
    """An image whose files are mounted at `root`, and what its configuration says."""

    root: Path
    config: Mapping[str, object]

    @classmethod
    def read(cls, root: str, inspected: str) -> Image:
        """Of a mounted container, and what `buildah inspect` says of its image."""
        return cls(Path(root), json.loads(Path(inspected).read_text("utf-8"))["Docker"]["config"])

    @property
    def command(self) -> list[str]:
        """What runs when nobody says otherwise."""
        return [*self.config["Entrypoint"], *(self.config["Cmd"] or [])]

    @property
    def user(self) -> tuple[str, str]:
        """User and group, as numbers."""
        user, group = str(self.config["User"]).split(":")
        return user, group

    def inside(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """A command as the image's user, without privileges, with the image's environment."""
        user, group = self.user
        given = dict(line.split("=", 1) for line in self.config["Env"]) | dict(env or {})
        return [
            "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
            "--bounding-set=-all", "--inh-caps=-all",
            "env", "-i", f"--chdir={self.config['WorkingDir']}",
            *(f"{key}={value}" for key, value in given.items()), *command,
        ]  # fmt: skip


@dataclass
class Container:
    """A running one."""

    image: Image
    holder: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The number that its PID 1 has outside."""
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        while self.holder.poll() is None:
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"The container ended by itself:\n{self.said()}")

    def said(self) -> str:
        """All it wrote."""
        return self.log.read_text("utf-8")

    def run(
        self, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A further command in the same container, as an engine's exec would run it."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self.image.inside(command, env)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60,
        )  # fmt: skip


@contextmanager
def running(
    image: Image, env: Mapping[str, str], library: Path | None = None
) -> Iterator[Container]:
    """A container of the image's own command; killed at the end if it still runs.

    Args:
        env: besides what the image says.
        library: a folder to be mounted as the volume at /library, writable.
    """
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SETUP, "sh"]
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            holder = subprocess.Popen(
                [*unshare, str(image.root), str(library or ""), *image.inside(image.command, env)],
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield Container(image, holder, log)
        finally:
            holder.kill()
            holder.wait()
