"""What must hold of the image and of a server that runs from it.

    python3 docker/verify/checks.py ROOT INSPECTED

ROOT is where the image's files are mounted, INSPECTED what `buildah inspect` says of it. Prints a
line for each thing that holds, and ends with the first that does not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from container import Container, Image, running

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
TOOLS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|c89|c99|clang|clang\+\+|ld|as|gfortran|rustc|nvcc|make|cmake|pip3?)"
    r"(-?\d[\d.]*)?"
)
"""Names of programs that build or install others."""
LEFTOVERS = ("run/build", "run/secrets", "etc/pip.conf", "root/.cache", "build", "pip", "code")


def hold(what: str, fact: object, told: object = "") -> None:
    """Say that it holds, or end."""
    if not fact:
        sys.exit(f"FAILED  {what}: {told or fact!r}")
    print(f"holds   {what}{f': {told}' if told else ''}", flush=True)


def check_config(image: Image) -> None:
    """The image says how it wants to be run."""
    config = image.config
    user, group = image.user
    hold("the user is a number, and not root", user.isdigit() and user != "0", f"{user}:{group}")
    hold("the server itself is the entry point", image.command == ["sailplane", "serve"])
    hold("a stop is SIGTERM", config["StopSignal"] == "SIGTERM")
    hold("the port is exposed", list(config["ExposedPorts"]), *config["ExposedPorts"])
    labels = config["Labels"]
    hold("labels say what it is", labels["org.opencontainers.image.title"] == "Sailplane")
    revision = labels["org.opencontainers.image.revision"]
    hold("a label names the commit", re.fullmatch(r"[0-9a-f]{40}", revision), revision)


def check_files(image: Image) -> None:
    """Nothing is in it that only building it needed, and nothing of this machine."""
    programs = [
        path.name
        for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "opt/sailplane/bin")
        for path in (image.root / folder).iterdir()
    ]
    found = [name for name in programs if TOOLS.fullmatch(name)]
    hold(f"no compiler and no installer among {len(programs)} programs", not found, found)
    left = [name for name in LEFTOVERS if (image.root / name).exists()]
    hold("nothing of the build is left", not left, left)
    ours = image.root / "opt/sailplane/lib/python3.11/site-packages"
    hold(
        "our packages are there", all((ours / p).is_dir() for p in ("experts", "routers", "server"))
    )
    hold("our tests are not", not (ours / "tests").exists())
    hold("the library says its licences", (image.root / "library" / "README.md").is_file())
    user = int(image.user[0])
    own = [p for p in image.root.rglob("*") if not p.is_symlink() and p.stat().st_uid == user]
    outside = [p for p in own if image.root / "library" not in [p, *p.parents]]
    hold("the user owns the library and nothing else", own and not outside, outside[:5])


def check_size(image: Image) -> None:
    """Say what it weighs: an image with torch's build for CUDA has three times as much."""
    torch = image.root / "opt/sailplane/lib/python3.11/site-packages/torch"
    whole, part = size(image.root), size(torch)
    hold("it is as small as torch lets it be", whole - part < 1.5e9, told_size(whole, part))


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def told_size(whole: int, torch: int) -> str:
    """For people."""
    return f"{whole / 1e6:.0f} MB, of which torch {torch / 1e6:.0f} MB"


def call(address: str, body: object = None, method: str | None = None) -> tuple[int, object]:
    """Status and JSON of an answer; status 0 where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    request.method = method or request.get_method()
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError as error:
        return 0, str(error)


def wait_until_ready(container: Container, address: str) -> float:
    """Seconds until `/ready` says so."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        if container.holder.poll() is not None:
            sys.exit(f"FAILED  it ended by itself:\n{container.said()}")
        if call(f"{address}/ready")[0] == 200:
            return time.monotonic() - began
        time.sleep(0.1)
    sys.exit(f"FAILED  not ready in {PATIENCE_SECONDS} s:\n{container.said()}")


def readme() -> tuple[dict[str, object], list[str]]:
    """The README's first question, and the choices it says are answered."""
    text = (REPOSITORY / "README.md").read_text("utf-8")
    asked = re.search(r"^curl .*?-d '(\{.*?\n\})'$", text, re.MULTILINE | re.DOTALL)
    answered = re.search(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if not asked or not answered:
        sys.exit("FAILED  README.md: no first question, or no answer to it")
    choices = [answer["choice"] for answer in json.loads(answered[1])["answers"]]
    return json.loads(asked[1]), choices


def check_answer(address: str) -> None:
    """It answers as the README says, and says why."""
    body, choices = readme()
    began = time.monotonic()
    status, answer = call(f"{address}/v1/decisions", body)
    took = time.monotonic() - began
    hold("the README's question is answered", status == 200, f"{status} in {took:.2f} s")
    hold("as the README says", [a["choice"] for a in answer["answers"]] == choices, choices)
    selections = [q["selection"] for q in answer["routing"]["questions"]]
    chosen = [[expert["id"] for expert in s["experts"]] for s in selections]
    hold("the trace names the experts of each question", all(chosen), chosen)


def check_process(container: Container) -> None:
    """It runs as the image says, and cannot do more."""
    status = Path(f"/proc/{container.pid}/status").read_text()
    said = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
    user = container.image.user[0]
    hold("every id of the process is the image's user", set(said["Uid"].split()) == {user})
    hold("the server is PID 1", said["NSpid"].split()[-1] == "1")
    hold("it has no privileges", int(said["CapBnd"], 16) == 0 and said["NoNewPrivs"] == "1")
    for folder in ("/", "/etc/sailplane", "/library", "/var/tmp"):
        told = container.run(["touch", f"{folder}/file"]).stdout.strip()
        hold("the root file system is read-only", "Read-only file system" in told, told)
    used = container.run(["du", "-sk", "/tmp"]).stdout.split()[0]
    hold("what it writes to /tmp fits in a small tmpfs", int(used) < 1024, f"{used} KiB")


def check_health(container: Container, env: dict[str, str]) -> None:
    """The image's own health check tells a server from none."""
    kind, *command = container.image.config["Healthcheck"]["Test"]
    hold("the health check needs no shell", kind == "CMD", " ".join(command))
    hold("it finds the server healthy", container.run(command, env).returncode == 0)
    absent = container.run(command, env | {"SAILPLANE_PORT": str(free_port())})
    hold("and none where none is", absent.returncode == 1, absent.stdout.strip())


def check_stop(container: Container) -> None:
    """SIGTERM ends it, cleanly and soon."""
    began = time.monotonic()
    os.kill(container.pid, signal.SIGTERM)
    try:
        code = container.holder.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(f"FAILED  SIGTERM did not end it:\n{container.said()}")
    took = time.monotonic() - began
    hold("SIGTERM ends it with exit code 0", code == 0, f"{code} after {took:.1f} s")


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def check_console(address: str) -> None:
    """The page is there, with what it loads."""
    with urllib.request.urlopen(f"{address}/console/", timeout=30) as response:
        page = response.read().decode()
    loaded = re.findall(r'(?:src|href)="(/console/[^"]+)"', page)
    sizes = [len(urllib.request.urlopen(address + one, timeout=30).read()) for one in loaded]
    hold("the console is served, and what it loads", sizes and all(sizes),
         f"{len(sizes)} files, {sum(sizes) >> 10} KiB")  # fmt: skip


def serve(
    image: Image, checks: Callable[[Container, str, dict[str, str]], None], **how: Path
) -> None:
    """Run a container, wait until it serves, check, and stop it."""
    port = free_port()
    # The network is this machine's, so it listens where no other machine reaches it.
    env = {"SAILPLANE_HOST": "127.0.0.1", "SAILPLANE_PORT": str(port)}
    with running(image, env, **how) as container:
        address = f"http://127.0.0.1:{port}"
        hold("it is ready", True, f"after {wait_until_ready(container, address):.1f} s")
        checks(container, address, env)
        check_stop(container)


def without_volume(container: Container, address: str, env: dict[str, str]) -> None:
    """What holds with the library that is baked in."""
    check_process(container)
    check_answer(address)
    check_console(address)
    check_health(container, env)


def with_volume(container: Container, address: str, env: dict[str, str]) -> None:
    """With a volume at /library, the library changes while it is served."""
    status, told = call(f"{address}/v1/aliases/reviews", {"expert": "sst2"}, "PUT")
    hold("the library on the volume takes an alias", status == 200, told)
    check_answer(address)


def main() -> None:
    """All of it, in order."""
    image = Image.read(*sys.argv[1:])
    check_config(image)
    check_files(image)
    check_size(image)
    serve(image, without_volume)
    with TemporaryDirectory() as folder:
        volume = Path(folder) / "library"
        shutil.copytree(image.root / "library", volume)
        subprocess.run(["chown", "-R", ":".join(image.user), volume], check=True)
        os.chmod(folder, 0o755)
        serve(image, with_volume, library=volume)


if __name__ == "__main__":
    main()
