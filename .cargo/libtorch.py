#!/usr/bin/env python3
"""Puts libtorch into `.libtorch/`: from an installed PyTorch, or from the wheels of `libtorch.lock`.

It knows nothing of what is built on it. Python 3.8 and the standard library are all it needs. A kill at any moment
leaves a state from which the next call goes on: wheels grow as `.part`, are checked, are unpacked aside and moved in,
and `build-version` is written last.

    libtorch.py [get] [--into DIR] [--lock FILE] [--part cpu|cuda]
    libtorch.py fetch URL FILE --sha256 HEX --size BYTES
"""

import argparse
import fcntl
import hashlib
import http.client
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections import namedtuple
from pathlib import Path
from urllib.parse import unquote, urlsplit

VERSION = "2.11.0"
HERE = Path(__file__).resolve().parent
# Any Python will do, because only the C++ part is taken: so everyone gets the same wheel.
WHEEL_OF = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none"]
GLIBC = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_25", "manylinux_2_18", "manylinux_2_17", "manylinux2014"]
# Of `torch/lib`, what the CPU part does without; its `libtorch.so` asks for CUDA and is replaced.
CUDA_OR_PYTHON = re.compile(r"lib(torch|torch_cuda.*|torch_python|torch_nvshmem|c10_cuda|caffe2_nvrtc|shm|torch_global_deps)\.so")
BLOCK = 1 << 20

Wheel = namedtuple("Wheel", "name version size sha256")


class Problem(Exception):
    """One sentence for the user."""


class Refused(Exception):
    """The direct way to a file is closed, but pip may know another."""


def main():
    parser = argparse.ArgumentParser(prog="libtorch.py", description="Puts libtorch %s into .libtorch/." % VERSION)
    verbs = parser.add_subparsers(dest="verb")
    get_args = verbs.add_parser("get", help="what is done without arguments")
    get_args.add_argument("--into", type=Path, default=HERE.parent / ".libtorch")
    get_args.add_argument("--lock", type=Path, default=HERE / "libtorch.lock")
    get_args.add_argument("--part", choices=["cpu", "cuda"], help="instead of looking for an NVIDIA driver")
    fetch_args = verbs.add_parser("fetch", help="one file, resumed where it stopped")
    fetch_args.add_argument("url")
    fetch_args.add_argument("file", type=Path)
    fetch_args.add_argument("--sha256", required=True)
    fetch_args.add_argument("--size", type=int, required=True)
    args = parser.parse_args(sys.argv[1:] or ["get"])
    try:
        if args.verb == "fetch":
            fetch(args.url, args.file, Wheel(args.file.name, "", args.size, args.sha256), opener({}))
        else:
            get(args.into, args.lock, args.part)
    except Problem as problem:
        sys.exit("pipe: %s" % problem)
    except Refused as refused:
        sys.exit("pipe: %s could not be had: %s" % (args.url, refused))
    except OSError as error:
        sys.exit("pipe: libtorch could not be put in place: %s" % error)
    except KeyboardInterrupt:
        sys.exit(130)


def get(into, lock, part):
    """Makes sure that there is a libtorch, and says nothing when there is."""
    if respected():
        return
    into.mkdir(parents=True, exist_ok=True)
    with open(into / ".lock", "w") as guard:
        # Two builds at once: the second waits and finds the work done.
        fcntl.flock(guard, fcntl.LOCK_EX)
        if ready(into):
            return
        part = part or ("cuda" if has_driver() else "cpu")
        clear(into)
        if not take_installed(into, part):
            take_wheels(into, wanted(lock, part), part)
        aside = into / "build-version.new"
        aside.write_text(VERSION + "\n")
        aside.replace(into / "build-version")


def ready(into):
    version = into / "build-version"
    # Follows links: an installed PyTorch may have gone since.
    return version.is_file() and version.read_text().strip() == VERSION and (into / "lib/libtorch.so").exists()


def clear(into):
    for name in ["build-version", "include", "lib", "site", "new"]:
        path = into / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)


def respected():
    """True if the user has chosen a libtorch; it must be of the right version."""
    if "LIBTORCH_USE_PYTORCH" in os.environ:
        found = installed_version()
        if found != VERSION:
            raise Problem(
                "`LIBTORCH_USE_PYTORCH` is set, but PyTorch %s is %s in %s: run `pip install torch==%s` or unset it"
                % (VERSION, "not installed" if found is None else "needed and %s installed" % found, sys.executable, VERSION)
            )
        return True
    if os.environ.get("LIBTORCH"):
        chosen = Path(os.environ["LIBTORCH"])
        if not chosen.is_absolute():
            raise Problem("`LIBTORCH` is `%s`: give the whole path, from `/`, or unset it" % chosen)
        if not (chosen / "include").is_dir() or not (chosen / "lib").is_dir():
            raise Problem("`LIBTORCH` is `%s`, which has no `include` and `lib`: correct it or unset it" % chosen)
        found = version_in(chosen)
        if found is not None and found != VERSION:
            raise Problem("`LIBTORCH` is `%s`, which is %s: %s is needed, set it to one or unset it" % (chosen, found, VERSION))
        return True
    return False


def version_in(libtorch):
    for name, pattern in [("build-version", r"(\S+)"), ("version.py", r"__version__ = '([^']+)'")]:
        path = libtorch / name
        if path.is_file():
            found = re.search(pattern, path.read_text())
            if found:
                return found.group(1).split("+")[0]
    return None


def has_driver():
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


# An installed PyTorch.


def installed_version():
    try:
        return importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def take_installed(into, part):
    """Links to the PyTorch of this Python, if it is the right one and its libraries can be loaded."""
    if installed_version() != VERSION:
        return False
    # Finding is not importing: `import torch` takes seconds and may fail for reasons of its own.
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return False
    torch = Path(list(spec.submodule_search_locations)[0]).resolve()
    if not (torch / "include/ATen").is_dir() or (part == "cuda" and not (torch / "lib/libtorch_cuda.so").exists()):
        return False
    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)"
    library = str(torch / "lib/libtorch.so")
    if subprocess.run([sys.executable, "-c", load, library], stderr=subprocess.DEVNULL).returncode != 0:
        return False
    say("libtorch %s: taking it from the installed PyTorch (%s)" % (VERSION, torch))
    (into / "include").symlink_to(torch / "include")
    (into / "lib").symlink_to(torch / "lib")
    return True


# Wheels.


def wanted(lock, part):
    machine = platform.machine()
    if sys.platform != "linux":
        raise Problem("libtorch is fetched on Linux only: install PyTorch %s and set `LIBTORCH_USE_PYTORCH=1`" % VERSION)
    wheels = []
    for line in lock.read_text().splitlines():
        if line and not line.startswith("#"):
            kind, of, name, version, size, sha256 = line.split()
            if of == machine and kind in ("cpu", part):
                wheels.append(Wheel(name, version, int(size), sha256))
    if not wheels:
        raise Problem("there is no libtorch %s for a `%s` processor: x86_64 and aarch64 are known" % (VERSION, machine))
    return wheels


def take_wheels(into, wheels, part):
    downloads = into / "downloads"
    downloads.mkdir(exist_ok=True)
    room(into, downloads, wheels, part)
    missing = [wheel for wheel in wheels if not (downloads / file_name(wheel)).exists()]
    if missing:
        megabytes = sum(wheel.size for wheel in missing) / 1e6
        say("libtorch %s (%s): downloading %.0f MB into %s" % (VERSION, part, megabytes, into))
        download(missing, downloads)
    say("libtorch %s (%s): unpacking" % (VERSION, part))
    new = into / "new"
    for wheel in wheels:
        unpack(downloads / file_name(wheel), new, wheel.name, part)
    if part == "cuda":
        (new / "site").replace(into / "site")
        (into / "include").symlink_to("site/torch/include")
        (into / "lib").symlink_to("site/torch/lib")
    else:
        # The name that the linker asks for, without the CUDA that the wheel's own one asks for.
        (new / "lib/libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
        (new / "include").replace(into / "include")
        (new / "lib").replace(into / "lib")
    shutil.rmtree(new)
    shutil.rmtree(downloads)


def file_name(wheel):
    return "%s-%s.whl" % (wheel.name, wheel.version)


def room(into, downloads, wheels, part):
    there = sum(path.stat().st_size for path in downloads.iterdir())
    total = sum(wheel.size for wheel in wheels)
    need = max(0, total - there) + total * (2.4 if part == "cuda" else 1)
    free = shutil.disk_usage(into).free
    if free < need:
        raise Problem(
            "libtorch needs %.1f GB in %s and %.1f GB are free: make room, or set `LIBTORCH` to a libtorch %s elsewhere"
            % (need / 1e9, into, free / 1e9, VERSION)
        )


def unpack(path, new, name, part):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            place = place_of(member.filename, name, part)
            if place is None or member.is_dir():
                continue
            target = new / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, BLOCK)


def place_of(member, name, part):
    """Where a file of a wheel goes, or None if it is not needed."""
    base = member.rsplit("/", 1)[-1]
    if ".." in member.split("/"):
        return None
    if part == "cuda":
        return "site/" + member if member.startswith(("torch/include/", "torch/lib/", "torch.libs/", "nvidia/")) else None
    if name != "torch":
        return "lib/" + base if base in ("libcupti.so.13", "libcudart.so.13") else None
    if member.startswith("torch/include/"):
        return member[len("torch/") :]
    if member.startswith("torch.libs/"):
        return "lib/" + base
    if re.fullmatch(r"torch/lib/[^/]*\.so[^/]*", member) and not CUDA_OR_PYTHON.fullmatch(base):
        return "lib/" + base
    return None


# Downloading.


def download(wheels, downloads):
    settings = pip_settings()
    urls = resolve(wheels, downloads) if settings["report"] else {}
    direct = opener(settings)
    for wheel in wheels:
        target = downloads / file_name(wheel)
        url = urls.get(wheel.name)
        if url is not None:
            try:
                fetch(url, target, wheel, direct)
                continue
            except Refused as refused:
                say("%s: %s, so pip is asked" % (file_name(wheel), refused))
        fetch_by_pip(wheel, target)


def pip(*args, **options):
    # A rule against installing outside virtual environments is not about reading an index.
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    return subprocess.run([sys.executable, "-m", "pip", *args], env=environment, universal_newlines=True, **options)


def pip_settings():
    """What pip is and how it reaches its index: {report, cert, proxy}."""
    about = pip("--version", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    version = re.match(r"pip (\d+)\.(\d+)", about.stdout)
    if about.returncode != 0 or not version:
        raise Problem("pip is not there: install it (`apt install python3-pip`, or `python3 -m ensurepip`)")
    version = (int(version.group(1)), int(version.group(2)))
    if version < (20, 3):
        raise Problem("pip %d.%d is too old: run `python3 -m pip install --upgrade pip`" % version)
    settings = {"report": version >= (22, 2)}
    listed = pip("config", "list", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    for name in ["cert", "proxy"]:
        found = re.search(r"^(?::env:|global|install)\.%s='(.*)'$" % name, listed, re.MULTILINE)
        settings[name] = found.group(1) if found else None
    return settings


def resolve(wheels, downloads):
    """Asks pip where the files are. A file other than the pinned one, as an index of variants offers, is left to pip."""
    # Older pip wants a target for another Python's wheels, even if nothing is to be written there.
    where = ["--target", str(downloads / "nothing"), "--only-binary=:all:", "--no-deps", *WHEEL_OF, *platforms()]
    names = ["%s==%s" % (wheel.name, wheel.version) for wheel in wheels]
    asked = pip(
        *["install", "--dry-run", "--ignore-installed", "--no-user", "--quiet", "--report", "-", *where, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE
    )
    if asked.returncode != 0:
        raise Problem("pip cannot find libtorch, check the network and pip's settings: %s" % last_line(asked.stderr))
    urls = {}
    hashes = {wheel.name: wheel.sha256 for wheel in wheels}
    for item in json.loads(asked.stdout)["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-")
        info = item["download_info"]
        told = info.get("archive_info", {}).get("hash") or "sha256=" + hashes[name]
        if told == "sha256=" + hashes[name]:
            urls[name] = info["url"]
    return urls


def platforms():
    return [word for glibc in GLIBC for word in ("--platform", "%s_%s" % (glibc, platform.machine()))]


def fetch_by_pip(wheel, target):
    folder = target.parent / (target.name + ".pip")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    needs = folder / "requirements.txt"
    needs.write_text("%s==%s --hash=sha256:%s\n" % (wheel.name, wheel.version, wheel.sha256))
    where = ["--only-binary=:all:", "--no-deps", *WHEEL_OF, *platforms(), "--dest", str(folder)]
    asked = pip("download", *where, "--require-hashes", "-r", str(needs), stdout=sys.stderr, stderr=subprocess.PIPE)
    files = list(folder.glob("*.whl"))
    if "DO NOT MATCH THE HASHES" in asked.stderr:
        raise Problem("%s of pip's index is not the pinned file (expected sha256 %s)" % (file_name(wheel), wheel.sha256))
    if asked.returncode != 0 or len(files) != 1:
        raise Problem("pip could not download %s: %s" % (file_name(wheel), last_line(asked.stderr)))
    check(files[0], wheel)
    files[0].replace(target)
    shutil.rmtree(folder)


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return re.sub(r"^ERROR: ", "", lines[-1]) if lines else "it does not say why"


def opener(settings):
    bundle = settings.get("cert") or os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    handlers = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=bundle or None))]
    if settings.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({"http": settings["proxy"], "https": settings["proxy"]}))
    return urllib.request.build_opener(*handlers)


def fetch(url, target, wheel, direct):
    """Downloads into `target`, from where an earlier call stopped. What does not have the pinned hash is thrown away."""
    if urlsplit(url).scheme == "file":
        source = Path(unquote(urlsplit(url).path))
        check(source, wheel)
        shutil.copyfile(source, target)
        return
    part = target.with_name(target.name + ".part")
    progress = Progress(target.name, wheel.size)
    failures = 0
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have >= wheel.size:
            break
        reason = go_on(url, part, have, wheel.size, direct, progress)
        if part.exists() and part.stat().st_size > have:
            failures = 0
        elif reason is not None:
            failures += 1
            if failures == 4:
                raise Problem(
                    "the download of %s stopped at %d of %d bytes (%s): run the same command to go on"
                    % (target.name, have, wheel.size, reason)
                )
            time.sleep(2**failures / 4)
    progress.end()
    try:
        check(part, wheel)
    except Problem:
        part.unlink()
        raise
    part.replace(target)


def go_on(url, part, have, size, direct, progress):
    """One connection's worth of bytes; why it ended early, or None."""
    request = urllib.request.Request(url, headers={"Range": "bytes=%d-" % have} if have else {})
    try:
        with direct.open(request, timeout=60) as answer:
            # A server without ranges begins again.
            again = answer.status != 206
            if not again and not answer.headers.get("Content-Range", "").startswith("bytes %d-" % have):
                raise Refused("the server sends another part than the one asked for")
            with open(part, "wb" if again else "ab") as sink:
                done = 0 if again else have
                while done <= size:
                    block = answer.read(BLOCK)
                    if not block:
                        return None if done == size else "the connection was cut"
                    sink.write(block)
                    done += len(block)
                    progress.at(done)
        return None
    except urllib.error.HTTPError as error:
        if error.code in (429, 500, 502, 503, 504):
            return "the server answers %d" % error.code
        raise Refused("the server answers %d" % error.code)
    except (urllib.error.URLError, ssl.SSLError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError) or "Tunnel" in str(reason) or not part.exists():
            raise Refused(str(reason))
        return str(reason)
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        return str(error) or type(error).__name__


def check(path, wheel):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    if digest.hexdigest() != wheel.sha256:
        raise Problem(
            "%s is not the pinned file (sha256 %s, expected %s): run the same command again, and if it stays so, ask who runs the package index"
            % (path.name, digest.hexdigest(), wheel.sha256)
        )


class Progress:
    """A line that rewrites itself on a terminal; elsewhere a line for every tenth."""

    def __init__(self, name, size):
        self.name, self.size = name, max(size, 1)
        self.live = sys.stderr.isatty()
        self.start, self.first, self.shown, self.tenth = time.monotonic(), None, 0.0, 0

    def at(self, done):
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if self.live and now - self.shown > 0.2:
            self.shown = now
            speed = (done - self.first) / max(now - self.start, 1e-3)
            left = ", %d s left" % ((self.size - done) / speed) if speed > 0 else ""
            text = "%s: %.0f of %.0f MB, %.1f MB/s%s" % (self.name, done / 1e6, self.size / 1e6, speed / 1e6, left)
            sys.stderr.write("\r\033[K" + text)
            sys.stderr.flush()
        elif not self.live and done * 10 // self.size > self.tenth and self.size > 50 * BLOCK:
            self.tenth = done * 10 // self.size
            say("%s: %d%%" % (self.name, min(self.tenth, 10) * 10))

    def end(self):
        if self.live:
            sys.stderr.write("\r\033[K")


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
