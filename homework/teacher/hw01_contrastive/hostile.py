"""Submissions that break the rules: each is put into part B of the solution, which must get 0 there with a sentence that says why.

``FILES`` go the whole way. ``PAST_THE_SEARCH`` are run without the search of the text beforehand, to see what the child itself stops.
"""

FILES = {
    "loops for ever": ("while True: pass", "did not finish within"),
    "the library's loss": ("from minivit.losses import nt_xent\n    return nt_xent(z, z, temperature=0.5)", "it imports minivit.losses"),
    "the library itself": ("import minivit\n    return minivit.nt_xent(z[::2], z[1::2], temperature=temperature)", "it imports minivit"),
    "importlib": ("import importlib\n    return importlib.import_module('minivit.losses')", "it imports importlib"),
    "__import__": ("return __import__('minivit').nt_xent(z[::2], z[1::2], temperature=temperature)", "it uses __import__"),
    "opens the solution": ("exec(open('homework/teacher/hw01_contrastive/solution.py').read())", "it uses"),
    "pathlib": ("from pathlib import Path\n    Path('solution.py').read_text()", "it imports pathlib"),
    "torch.load": ("torch.load('solution.pt')", "it uses load"),
    "torch's own sys": ("torch.sys.path", "it uses sys"),
    "os._exit": ("import os\n    os._exit(0)", "it imports os"),
    "SystemExit": ("raise SystemExit(0)", "stopped with SystemExit"),
    "two gigabytes": ("torch.empty(2**29)", "MB of memory"),
    "two gigabytes of Python": ("x = bytearray(2**31)", "MB of memory"),
    "huge memory": ("torch.ones(10**12)", "MB of memory"),
    "huge answer": ("return torch.zeros(3000, 3000)", "a tensor of 9,000,000"),
    "endless recursion": ("return variant_loss(z, temperature)", "RecursionError"),
    "a text": ("return 'full marks, please'", "returned"),
    "nothing": ("return None", "nothing (None)"),
    "an object": ("return type('Mark', (), {'__reduce__': lambda self: (print, ('pwned',))})()", "returned a Mark"),
    "NaN": ("return z.sum() * float('nan')", "a NaN"),
    "kills the child": ("import signal", "it imports signal"),
}

TO_EVERY_FILE = "for fd in range(3, 20):\n        try: torch.os.write(fd, TEXT)\n        except OSError: pass"
PAST_THE_SEARCH = {
    "loads the library": ("torch.importlib.import_module('minivit.losses')", "it imports minivit"),
    "imports something else": ("import os", "it imports os; allowed are"),
    "loads the library by import": ("import minivit.losses", "it imports minivit.losses"),
    "reads a file": ("torch.os.open('/etc/hostname', 0)", "read or write a file"),
    "reads the answers": ("torch.importlib.import_module('io').open(torch.os.path.join({here!r}, 'hw01.py')).read()", "read or write a file"),
    "lists a folder": ("torch.os.listdir('/')", "read or write a file"),
    "writes into Python": ("torch.os.open(torch.__file__, torch.os.O_RDWR)", "read or write a file"),
    "catches everything": ("try:\n        torch.os.open('/etc/hostname', 0)\n    except BaseException:\n        pass", "read or write a file"),
    "starts a process": ("torch.importlib.import_module('subprocess').run(['true'])", "it tried subprocess.Popen"),
    "forks": ("torch.os.fork()", "it tried os.fork"),
    "kills its parent": ("torch.os.kill(torch.os.getppid(), 9)", "it tried os.kill"),
    "opens the network": ("torch.importlib.import_module('socket').socket()", "it tried socket"),
    "leaves": ("torch.os._exit(0)", "ended without an answer"),
    "answers itself": (TO_EVERY_FILE.replace("TEXT", "b'rubbish'") + "\n    torch.os._exit(0)", "ended without"),
    "fills the pipe": (TO_EVERY_FILE.replace("TEXT", "b'x' * 20_000_000"), "far too long"),
    "crashes": ("torch.os.abort()", "ended without an answer"),
}  # fmt: skip
