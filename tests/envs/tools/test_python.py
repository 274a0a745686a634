import contextlib
import multiprocessing
import os
import socket
import threading
import time

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from palaestra.envs.tools import ToolError, ToolTimeout, bubblewrap, monty
from palaestra.envs.tools.bubblewrap import Bubblewrap
from palaestra.envs.tools.monty import Monty
from palaestra.envs.tools.python import MAX_CODE_LENGTH, MAX_RESULT_LENGTH, python_tool, sandbox
from palaestra.errors import UserError
from pydantic_monty._binary import find_monty_binary

SECRET = "canary-5d1f"
_MONTY = find_monty_binary()


def _available():
    yield pytest.param(Monty(), id="monty")
    try:
        yield pytest.param(Bubblewrap(), id="bubblewrap")
    except UserError as error:
        yield pytest.param(
            None, id="bubblewrap", marks=pytest.mark.skip(reason=f"no bubblewrap here: {error}")
        )


PLACES = list(_available())
everywhere = pytest.mark.parametrize("place", PLACES)


# Run as they are, with {canary}, a file of the host, and {port}, where the host listens.
ESCAPES = {
    "read a file": "print(open('{canary}').read())",
    "write a file": "open('{canary}', 'w').write('gone')",
    "append to a file": "with open('{canary}', 'a') as f: f.write('more')",
    "passwd": "print(open('/etc/passwd').read())",
    "shadow": "print(open('/etc/shadow', 'rb').read())",
    "pathlib": "from pathlib import Path\nprint(Path('{canary}').read_text())",
    "pathlib write": "from pathlib import Path\nPath('{canary}').write_text('gone')",
    "unlink": "import os\nos.unlink('{canary}')",
    "rename": "import os\nos.rename('{canary}', '{canary}.gone')",
    "symlink": "import os\nos.symlink('{canary}', '/tmp/x')\nprint(open('/tmp/x').read())",
    "walk": "import os\nfor f in ('/', '/home', '/root', '/work', '/tmp'): print(os.listdir(f))",
    "home": "import os\nprint(os.listdir(os.path.expanduser('~')))",
    "environ": "import os\nprint(os.environ)",
    "getenv": "import os\nprint(os.getenv('PALAESTRA_CANARY'))",
    "own environ": "print(open('/proc/self/environ').read())",
    "others' environ": (
        "import os\nfor p in os.listdir('/proc'):\n"
        "  try: print(open('/proc/' + p + '/environ').read())\n  except Exception: pass"
    ),
    "others' memory": "print(open('/proc/1/mem', 'rb').read(100))",
    "others' root": "print(open('/proc/1/root{canary}').read())",
    "parent's root": "import os\nprint(open(f'/proc/{{os.getppid()}}/root{canary}').read())",
    "descriptors": (
        "import os\nfor i in range(3, 64):\n  try: print(os.read(i, 99))\n  except OSError: pass"
    ),
    "subprocess": "import subprocess\nprint(subprocess.check_output(['cat', '{canary}']))",
    "os.system": "import os\nprint(os.system('cat {canary}'))",
    "os.popen": "import os\nprint(os.popen('env').read())",
    "exec": "import os\nos.execv('/bin/sh', ['sh', '-c', 'cat {canary}'])",
    "importlib": (
        "import importlib\nprint(importlib.import_module('sub' + 'process').getoutput('env'))"
    ),
    "__import__": "print(__import__('o' + 's').environ)",
    "subclasses": (
        "for c in ().__class__.__base__.__subclasses__():\n"
        "  if c.__name__ == 'Popen': print(c('env').communicate())"
    ),
    "globals of a function": "print((lambda: 0).__globals__['__builtins__'])",
    "frames": (
        "try: 1 / 0\nexcept Exception as e:\n  f = e.__traceback__.tb_frame\n"
        "  while f: print(f.f_globals); f = f.f_back"
    ),
    "getattr by name": "print(getattr(getattr('', '__cl' + 'ass__'), '__mro__'))",
    "format string": "print('{{0.__class__.__init__.__globals__}}'.format(print))",
    "eval": "print(eval('__import__(\"os\").environ'))",
    "code object": "f = lambda: 0\nf.__code__ = f.__code__.replace(co_consts=(1,))\nprint(f())",
    "ctypes": "import ctypes\nprint(ctypes.CDLL(None).system(b'cat {canary}'))",
    "ctypes crash": "import ctypes\nctypes.string_at(0)",
    "mount": "import ctypes\nprint(ctypes.CDLL(None).mount(b'/', b'/tmp', None, 4096, None))",
    "chroot": (
        "import os\nos.chroot('/tmp')\nos.chdir('../../../..')\nprint(open('{canary}').read())"
    ),
    "new namespaces": "import ctypes\nprint(ctypes.CDLL(None).unshare(0x10000000))",
    "become root": "import os\nos.setuid(0)\nprint(open('{canary}').read())",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 0.3)",
    "socket outside": "import socket\nsocket.create_connection(('1.1.1.1', 53), 0.3)",
    "name look-up": "import socket\nprint(socket.gethostbyname('localhost'))",
    "http": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}', timeout=0.3)",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
    "kill the parent": "import os\nos.kill(os.getppid(), 9)",
    "kill everybody": "import os\nos.kill(-1, 9)",
    "kill the first": "import os\nos.kill(1, 9)",
    "kill by number": "import os\nos.kill({pid}, 9)",
    "os._exit": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "raise SystemExit(3)",
    "BaseException": "raise BaseException('x')",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "abort": "import os\nos.abort()",
    "read stdin": "print(input())",
    "read all of stdin": "import sys\nprint(sys.stdin.read())",
    "close the output": "import os, time\nos.close(1)\nos.close(2)\nwhile True: pass",
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "daemon": (
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        "    while True: time.sleep(1)\nprint('left one')"
    ),
    "threads": (
        "import threading\ndef spin():\n  while True: pass\n"
        "for _ in range(50): threading.Thread(target=spin).start()"
    ),
    "process pool": (
        "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()\np.join()"
    ),
    "spin": "while True: pass",
    "spin in C": "sum(range(10**12))",
    "spin after finally": "try: 1 / 0\nfinally:\n  while True: pass",
    "catch everything": (
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass"
    ),
    "ignore signals": (
        "import signal\nfor s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True: pass"
    ),
    "sleep": "import time\ntime.sleep(60)",
    "sleep often": "import time\nwhile True: time.sleep(0.01)",
    "asleep in asyncio": "import asyncio\nasyncio.run(asyncio.sleep(60))",
    "raise limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))\nwhile True: pass"
    ),
    "list bomb": "x = [0]\nwhile True: x += x",
    "large list": "x = [[]] * 10**10",
    "string bomb": "x = 'x' * 10**10",
    "bytes bomb": "x = bytearray(10**12)",
    "catch MemoryError": (
        "x = []\nwhile True:\n  try:\n    while True: x.append('x' * 10**6)\n"
        "  except MemoryError: pass"
    ),
    "integer bomb": "9**9**9",
    "long integer": "print(7**10**6)",
    "shift bomb": "1 << 10**11",
    "factorial": "import math\nmath.factorial(10**7)",
    "padded": "print(f'{{1:>10000000000}}')",
    "shared lists": "x = []\nfor _ in range(100): x = [x, x]\nx",
    "nested lists": "x = []\nfor _ in range(100000): x = [x]\nx",
    "cyclic list": "x = []\nx.append(x)\nx",
    "recursion": "def f(): return f()\nf()",
    "catch RecursionError": (
        "def f():\n  try: f()\n  except RecursionError: f()\nf()"
    ),
    "unlimited recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "regex bomb": "import re\nre.match('(a|aa)+$', 'a' * 60 + 'b')",
    "regex with reference": "import re\nre.match(r'(a|aa)+\\1$', 'a' * 60 + 'b')",
    "deep brackets": "(" * 5000 + ")" * 5000,
    "deep unary": "-" * 9000 + "1",
    "deep blocks": "\n".join(" " * i + "if 1:" for i in range(120)) + "\n" + " " * 120 + "1",
    "many statements": "1;" * 9000,
    "print forever": "while True: print('x' * 1000)",
    "errors forever": "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
    "one long line": "print('x' * 10**7)",
    "fill the disk": (
        "i = 0\nwhile True:\n  i += 1\n  with open(f'/tmp/{{i}}', 'wb') as f: f.write(b'x' * 10**6)"
    ),
    "one large file": "with open('/tmp/x', 'wb') as f:\n  while True: f.write(b'x' * 10**6)",
    "lying value": "class A:\n  def __repr__(self):\n    while True: pass\nA()",
    "at exit": "import atexit\ndef f():\n  while True: pass\natexit.register(f)",
    "null": "\x00",
    "lone surrogate": "'\ud800'",
}  # fmt: skip


def test_there_are_enough_attempts():
    assert len(ESCAPES) >= 40


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Yield what the attempts are after: a file, a listening socket, a process; check them."""
    canary = tmp_path / "canary.txt"
    canary.write_text(SECRET)
    canary.chmod(0o666)
    monkeypatch.setenv("PALAESTRA_CANARY", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"canary": canary, "port": server.getsockname()[1], "pid": os.getpid()}
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert canary.read_text() == SECRET
    assert os.listdir(tmp_path) == [canary.name]


@everywhere
@pytest.mark.parametrize("attempt", ESCAPES)
def test_an_attempt_is_contained(place, attempt, host):
    # A text that is long has no fields.
    code = ESCAPES[attempt]
    code = code.format(**host) if len(code) < 1000 else code
    if place.name == "monty":
        place.run("1")  # starting the worker is not the program's time
    start = time.monotonic()
    try:
        said = place.run(code)
    except ToolError as error:
        said = str(error)
    assert time.monotonic() - start < 1.5
    assert SECRET not in said
    assert len(said) <= 10_000
    assert not _left_behind()


def _left_behind():
    """Return processes of sandboxes that are still there, but for the idle worker of Monty."""
    for _ in range(20):
        left = [p for p in psutil.process_iter(["cmdline", "ppid"]) if _is_left(p)]
        if not left:
            break
        time.sleep(0.02)
    return left


def _is_left(process):
    cmdline, parent = process.info["cmdline"] or [], process.info["ppid"]
    if parent == os.getpid():
        return bubblewrap._LAUNCHER in cmdline
    # Without a parent: what other programs run in their sandboxes is not ours.
    is_of_a_sandbox = bubblewrap._LAUNCHER in cmdline or cmdline[-2:][:1] == [_MONTY]
    return parent == 1 and is_of_a_sandbox


@everywhere
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(1)\n2", "1\n2\n"),
        ("x = 3", ""),
        ("None", ""),
        ("", ""),
        ("'a'", "'a'\n"),
        ("print('é…')", "é…\n"),
        ("def f(x):\n    return [c.upper() for c in x]\nf('ab')", "['A', 'B']\n"),
        ("import json\njson.dumps([True, 2.0, None])", "'[true, 2.0, null]'\n"),
    ],
)
def test_it_says_what_a_program_prints_and_its_last_value(place, code, said):
    assert place.run(code) == said


@everywhere
def test_it_says_the_last_line_of_an_error_and_where_it_is(place):
    with pytest.raises(ToolError) as error:
        place.run("def f(x):\n    return x.y\nprint('before')\nf(3)")
    assert str(error.value) == "AttributeError: 'int' object has no attribute 'y' (line 2)"
    with pytest.raises(ToolError, match="SyntaxError"):
        place.run("x = = 3")


@everywhere
def test_a_program_that_raises_a_timeout_itself_has_failed(place):
    with pytest.raises(ToolError) as error:
        place.run("raise TimeoutError('feed time limit exceeded: 1s > 1s')")
    assert error.value.failure == "tool"


@everywhere
def test_time_is_up_after_a_second(place):
    with pytest.raises(ToolTimeout) as error:
        place.run("while True: pass")
    assert error.value.failure == "timeout"


@everywhere
def test_a_program_knows_nothing_of_the_one_before(place):
    place.run("x = 3")
    with pytest.raises(ToolError, match="NameError"):
        place.run("x")


@everywhere
def test_output_is_kept_up_to_the_room_for_it(place):
    assert place.run("print('é' * 5000)", room=100) == "é" * 100
    assert len(place.run("for i in range(20000): print(i)")) == 10_000


@everywhere
def test_the_same_program_says_the_same(place):
    code = "import random\nprint(random.random(), hash('a'), {'b', 'c', 'd'})"
    said = place.run(code)
    monty._end_all()
    assert place.run(code) == said


def test_time_stands_still_in_monty():
    code = "import time, datetime\nprint(time.time(), datetime.datetime.now())"
    said = Monty().run(code)
    time.sleep(0.01)
    assert Monty().run(code) == said


@everywhere
def test_threads_run_programs_beside_each_other(place):
    said = {}

    def run(i):
        said[i] = place.run(f"sum(range({i}))")

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {i: f"{sum(range(i))}\n" for i in range(8)}


@everywhere
def test_a_fork_runs_programs_of_its_own(place):
    assert place.run("1") == "1\n"
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(place.run("2")))
    child.start()
    assert ours.poll(20)
    assert ours.recv() == "2\n"
    child.join()
    assert place.run("3") == "3\n"


def test_two_hundred_late_programs_leave_nothing_behind():
    place = Monty(seconds=0.01)
    place.run("1")
    before = len(psutil.Process().children(recursive=True)), threading.active_count()
    for _ in range(200):
        with pytest.raises(ToolTimeout):
            place.run("while True: pass")
    assert (len(psutil.Process().children(recursive=True)), threading.active_count()) == before


@pytest.mark.parametrize("depth", [0, 1], ids=["worker", "interpreter"])
def test_a_worker_that_died_while_idle_is_nobodys_fault(depth):
    place = Monty()
    place.run("1")
    process = monty._idle[-1]._process.pid
    victim = psutil.Process(process).children()[0] if depth else psutil.Process(process)
    victim.kill()
    psutil.wait_procs([victim], 0.2)
    assert place.run("2") == "2\n"


def test_a_program_that_brings_two_workers_down_did_it(monkeypatch):
    monkeypatch.setattr(monty._Worker, "ask", lambda *_: ("crash", ""))
    with pytest.raises(ToolError, match="brought the interpreter down"):
        Monty().run("1")


def test_a_worker_that_does_not_start_is_no_fault_of_the_program(monkeypatch):
    monty._end_all()
    monkeypatch.setattr(monty.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="does not start"):
        Monty().run("1")


@pytest.mark.skipif(bool(PLACES[-1].marks), reason="no bubblewrap here")
def test_a_bubblewrap_that_fails_is_no_fault_of_the_program():
    place = Bubblewrap()
    with pytest.raises(ToolError, match="bwrap: lies"):
        place.run("import sys\nsys.exit('bwrap: lies')")
    place._command = ("/bin/sh", "-c", "echo bwrap: cannot >&2; exit 1")
    with pytest.raises(OSError, match="bwrap: cannot"):
        place.run("1")


def test_bubblewrap_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="not installed"):
        bubblewrap._working_command.__wrapped__()
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda _: "/bin/false")
    with pytest.raises(UserError, match="does not work here"):
        bubblewrap._working_command.__wrapped__()


def test_sandboxes_have_names():
    assert sandbox().name == "monty"
    assert sandbox("monty").name == "monty"
    with pytest.raises(UserError, match="unknown sandbox"):
        sandbox("docker")


def test_the_tool_is_named_python_and_cuts_what_is_long():
    tool = python_tool(sandbox())
    assert tool.name == "python"
    assert tool.schema["function"]["parameters"]["required"] == ["code"]
    assert tool.call({"code": "6 * 7"}) == "42"
    said = tool.call({"code": "print('x' * 5000)"})
    assert said == "x" * (MAX_RESULT_LENGTH - 1) + "…"
    with pytest.raises(ToolError, match="longer"):
        tool.call({"code": "1" * (MAX_CODE_LENGTH + 1)})


_PIECES = (
    *("def f(x): ", "return ", "for ", "while ", "in ", "if ", "else", "lambda ", "import ", "try"),
    *("class A", "except", "raise ", "yield ", "async ", "await ", "match ", "print", "x", "1"),
    *("(", ")", "[", "]", "{", "}", ":", "\n", "  ", "\t", "9**", "'", '"""', "f'{", "@", "*", "-"),
    *("\\", "#", ";", "="),
)
_PROGRAMS = st.text() | st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)


@settings(max_examples=150, deadline=None)
@example("\ud800")
@example("\x00")
@example("x = " + "9" * 5000)
@given(_PROGRAMS)
def test_any_text_is_a_program_for_monty(code):
    _run_anything(Monty(), code)


@pytest.mark.skipif(bool(PLACES[-1].marks), reason="no bubblewrap here")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example("\ud800")
@given(_PROGRAMS)
def test_any_text_is_a_program_for_bubblewrap(code):
    _run_anything(Bubblewrap(), code)


def _run_anything(place, code):
    with contextlib.suppress(ToolError):
        assert isinstance(place.run(code), str)
