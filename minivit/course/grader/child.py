"""The grader's child: runs a student's functions and sends back what they return. It knows no right answer, and not minivit.

A script of its own, started as ``python -BP child.py``. A job is one line of JSON on standard input, its reply one line on
standard output: ``{"answers": [one per call]}``, or ``{"refused": sentence}`` for a part that breaks a rule or a limit.
On Linux this process loads torch once and forks a child for each job; elsewhere (``--once``) it runs one job and ends.

In the child: a time limit, a memory limit, one thread, an empty folder as working directory, no input, no output; no other
process, no network, no file but Python's and its packages'. An audit hook sees to it, which Python code cannot take off.
That deters; it is no sandbox against an attacker: C++ code does not ask the hook. Grade strangers in a throw-away account or container.
"""
import builtins
import contextlib
import json
import os
import select
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

LONGEST_REPLY = 8_000_000  # bytes
LARGEST_TENSOR = 100_000  # numbers
NEVER = ("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.kill", "os.startfile", "pty.", "socket.", "ctypes.",
         "shutil.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate")  # fmt: skip
NOT_IN_HOMEWORK = ("open", "exec", "eval", "compile", "input", "breakpoint", "help", "exit", "quit")


def serve() -> None:
    """Answer job after job until standard input ends."""
    for line in sys.stdin:
        print(apart(json.loads(line)), flush=True)


def apart(job: dict) -> str:
    """The reply to one job, from a forked child that is killed with all it started when its time is over."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(read_end)
            run(job, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    reply, finished, deadline = b"", False, time.monotonic() + job["seconds"]
    while not finished and len(reply) <= LONGEST_REPLY and select.select([read_end], [], [], max(0, deadline - time.monotonic()))[0]:
        chunk = os.read(read_end, 1 << 16)
        reply, finished = reply + chunk, not chunk
    for kill in (os.killpg, os.kill):  # the group is not there yet if the child has only just begun
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    os.close(read_end)
    os.waitpid(pid, 0)
    if len(reply) > LONGEST_REPLY:
        return json.dumps({"refused": "the answer is far too long."})
    return reply.decode(errors="replace").split("\n")[0] if finished else "too slow"


def run(job: dict, out: int) -> None:
    """Run one job under its limits, write the reply to the file descriptor ``out``, and end the process."""

    def send(reply: dict) -> None:
        data = (json.dumps(reply) + "\n").encode()
        while data:
            data = data[os.write(out, data) :]
        os._exit(0)

    def refuse(what: str) -> None:
        send({"refused": f"{line_of(sys._getframe())}{what}"})

    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.chdir(tempfile.mkdtemp(dir="."))
    torch.manual_seed(0)
    limit(job)
    guard(refuse)
    names = {"__name__": "homework", "__builtins__": few_builtins(job["imports"], refuse)}
    try:
        exec(compile(job["source"], job["file"], "exec", dont_inherit=True), names)
        answers = [answer(names, call) for call in job["calls"]]
    except BaseException as error:
        answers = [failure(error)] * len(job["calls"])
    if any("no memory" in a for a in answers):
        refuse(f"it asked for more than {job['memory_mb']} MB of memory.")
    send({"answers": answers})


def limit(job: dict) -> None:
    """Memory beyond what Python and torch hold already, processor time, size of files. Windows has no such limits."""
    try:
        import resource
    except ImportError:
        return
    limits = {"RLIMIT_CPU": int(job["seconds"] + time.process_time()) + 2, "RLIMIT_FSIZE": 1_000_000, "RLIMIT_CORE": 0}
    status = Path("/proc/self/statm")
    if status.exists():
        limits["RLIMIT_AS"] = int(status.read_text().split()[0]) * resource.getpagesize() + job["memory_mb"] * 2**20
    for name, value in limits.items():
        _, most = resource.getrlimit(getattr(resource, name))
        value = value if most == resource.RLIM_INFINITY else min(value, most)  # nobody may raise what the system has set
        resource.setrlimit(getattr(resource, name), (value, value))


def guard(refuse: Callable[[str], None]) -> None:
    """From here on this process opens only files of Python and its packages, and starts nothing. It cannot be undone."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {str(Path(torch.__file__).parents[1])}
    roots = [os.path.realpath(place) for place in places]
    own = os.path.realpath(".")

    def allowed(path: object, flags: int) -> bool:
        real = os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""
        if f"{real}{os.sep}".startswith(f"{own}{os.sep}"):
            return True
        inside = [real[len(root) :] for root in roots if f"{real}{os.sep}".startswith(f"{root}{os.sep}")]
        reads = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return reads and bool(inside) and not any(rest.startswith(f"{os.sep}minivit") for rest in inside)

    def hook(event: str, args: tuple) -> None:
        if event.startswith(NEVER):
            refuse(f"it tried {event}: a homework function starts nothing, sends nothing and changes no files.")
        elif event in ("open", "os.listdir", "os.scandir") and not allowed(args[0], args[2] if event == "open" else 0):
            refuse("it tried to read or write a file: a homework function works on its arguments alone.")
        elif event == "import" and args[0].split(".")[0] == "minivit":
            refuse(f"it imports {args[0]}: this homework asks you to write the function yourself.")

    class NoMinivit:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name.split(".")[0] == "minivit":
                refuse(f"it imports {name}: this homework asks you to write the function yourself.")

    sys.meta_path.insert(0, NoMinivit)
    sys.addaudithook(hook)


def few_builtins(imports: list[str], refuse: Callable[[str], None]) -> dict:
    """Python's built-in functions, without those that a homework has no use for."""

    def imported(name: str, globals: dict | None = None, locals: dict | None = None, fromlist: tuple = (), level: int = 0) -> object:
        if name.split(".")[0] not in imports:
            refuse(f"it imports {name}; allowed are {', '.join(imports)}.")
        return __import__(name, globals, locals, fromlist, level)

    return {name: value for name, value in vars(builtins).items() if name not in NOT_IN_HOMEWORK} | {"__import__": imported}


def answer(names: dict, call: dict) -> dict:
    """What one call returns, and the gradient that reaches the arguments numbered in ``call["grad"]``."""
    try:
        args = [tensor(a) if isinstance(a, dict) else a for a in call["args"]]
        for number in call["grad"]:
            args[number].requires_grad_()
        value = names[call["function"]](*args)
        grads = None
        if call["grad"] and isinstance(value, torch.Tensor) and value.requires_grad:
            value.sum().backward()
            grads = [encode(args[number].grad) for number in call["grad"]]
        return {"value": encode(value), "grads": grads}
    except BaseException as error:
        return failure(error)


def tensor(given: dict) -> torch.Tensor:
    return torch.tensor(given["tensor"], dtype=getattr(torch, given["dtype"])).view(given["shape"])


def encode(value: object) -> dict:
    """A returned value in plain numbers and text: the parent unpickles nothing."""
    if isinstance(value, torch.Tensor):
        if value.numel() > LARGEST_TENSOR or value.is_complex():
            return {"other": f"a tensor of {value.numel():,} {str(value.dtype).removeprefix('torch.')} numbers"}
        plain = value.detach().cpu().to_dense()
        return {"tensor": plain.flatten().tolist(), "shape": list(plain.shape), "dtype": str(plain.dtype).removeprefix("torch.")}
    if isinstance(value, int | float):
        return {"number": float(value)}
    if isinstance(value, str):
        return {"text": value[:100]}
    return {"other": "nothing (None)" if value is None else f"a {type(value).__name__[:40]}"}


def failure(error: BaseException) -> dict:
    text = str(error).split("\n")[0][:200]
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return {"no memory": True}
    frames, last = error.__traceback__, None
    while frames:
        last, frames = frames.tb_lineno if frames.tb_frame.f_globals.get("__name__") == "homework" else last, frames.tb_next
    return {"error": type(error).__name__[:40], "text": text, "line": last}


def line_of(frame: object) -> str:
    """``line 12: `` of the student's file, from the frame that stands there."""
    while frame and frame.f_globals.get("__name__") != "homework":
        frame = frame.f_back
    return f"line {frame.f_lineno}: " if frame else ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--once" in sys.argv:
        run(json.loads(sys.stdin.readline()), os.dup(1))
    else:
        serve()
