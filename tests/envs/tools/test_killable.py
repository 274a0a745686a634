"""Functions whose work ends when their time is over."""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from palaestra.envs.tools import Tool, ToolError, ToolTimeout, killable
from palaestra.envs.tools.killable import Killable, Late


def answer(what: str = "", seconds: float = 0.0) -> str:
    """Do what is asked for.

    Args:
        what: What to do.
        seconds: How long to sleep before.
    """
    time.sleep(seconds)
    match what:
        case "refuse":
            raise ToolError("refused")
        case "break":
            raise KeyError("broken")
        case "die":
            os._exit(3)
        case "print":
            print("printed by a tool")
        case "spin":
            while True:
                pass
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            time.sleep(60)
        case "breed":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            time.sleep(60)
        case "strange":
            raise Strange(1, 2)
    return f"{what} by {os.getpid()}"


class Strange(Exception):
    """Cannot be read back once pickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"strange {first}")


def descendants() -> set[int]:
    return {p.pid for p in psutil.Process().children(recursive=True)}


def test_a_call_returns_and_the_process_is_kept() -> None:
    call = Killable(answer, 5.0)
    first, second = call(what="a"), call(what="b")
    assert first.partition(" by ")[2] == second.partition(" by ")[2] != str(os.getpid())
    call.close()


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [("refuse", ToolError, "refused"), ("break", KeyError, "broken"),
     ("die", ChildProcessError, "died"), ("strange", RuntimeError, "strange 1")],
)  # fmt: skip
def test_what_it_raises_is_raised_here_and_the_next_call_works(
    what: str, error: type[Exception], says: str
) -> None:
    call = Killable(answer, 5.0)
    with pytest.raises(error, match=says):
        call(what=what)
    assert call(what="again").startswith("again")
    call.close()


def test_a_process_that_died_while_it_waited_is_no_fault_of_the_call() -> None:
    before = descendants()
    call = Killable(answer, 5.0)
    worker = int(call(what="a").partition(" by ")[2])
    os.kill(worker, signal.SIGKILL)
    gone = psutil.Process(worker)
    # Its first thread is a zombie before the last has ended, and till then it cannot be reaped.
    while gone.status() != psutil.STATUS_ZOMBIE or gone.num_threads() > 1:
        time.sleep(0.01)
    assert call(what="b").startswith("b by")
    call.close()
    assert descendants() <= before


@pytest.mark.parametrize("what", ["sleep", "spin", "deaf", "breed"])
def test_a_minute_of_work_ends_after_a_second(what: str) -> None:
    before, threads = descendants(), threading.active_count()
    call = Killable(answer, 1.0)
    call(what="start")  # imports this module, which takes a part of a second
    start = time.monotonic()
    with pytest.raises(Late):
        call(what=what, seconds=60.0 if what == "sleep" else 0.0)
    assert time.monotonic() - start < 1.5
    assert descendants() <= before
    assert threading.active_count() == threads


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that takes a second to import."""
    (tmp_path / "slow_to_import.py").write_text(
        "import time\ntime.sleep(1)\n\n\ndef wait(seconds):\n    time.sleep(seconds)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("slow_to_import")
    del sys.modules["slow_to_import"]


def test_the_start_of_the_process_is_not_counted(slow: Any) -> None:
    call = Killable(slow.wait, 0.2)
    for _ in range(2):
        call(seconds=0.0)
        begun = time.monotonic()
        with pytest.raises(Late):
            call(seconds=60.0)
        assert time.monotonic() - begun < 0.7
    call.close()


def test_a_start_that_takes_for_ever_is_no_fault_of_the_call(
    slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descendants()
    monkeypatch.setattr(killable, "_START", 0.3)
    begun = time.monotonic()
    with pytest.raises(ChildProcessError, match=r"did not start within 0\.3 s"):
        Killable(slow.wait, 5.0)(seconds=0.0)
    assert time.monotonic() - begun < 0.8
    assert descendants() <= before


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_a_function_of_the_program_itself_is_refused(module: str) -> None:
    def lost() -> None: ...

    lost.__module__ = module
    for function in (lost, partial(lost)):
        with pytest.raises(ValueError, match="define it in a module"):
            Killable(function, 1.0)


def test_two_hundred_late_calls_leave_nothing_behind() -> None:
    before, threads = descendants(), threading.active_count()
    files = psutil.Process().num_fds()
    call = Killable(subprocess.getoutput, 0.01)
    for _ in range(200):
        with pytest.raises(Late):
            call(cmd="sleep 60")
    assert descendants() <= before
    assert threading.active_count() == threads
    assert psutil.Process().num_fds() <= files


def test_a_late_tool_is_a_timeout() -> None:
    with pytest.raises(ToolTimeout, match=r"answer took longer than 0\.2 s"):
        Tool(answer, timeout=0.2).call({"what": "late", "seconds": 60.0})


def test_threads_do_not_wait_for_each_other() -> None:
    call = Killable(answer, 5.0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: call(), range(4)))
        start = time.monotonic()
        list(pool.map(lambda _: call(seconds=0.5), range(4)))
    assert time.monotonic() - start < 1.5
    call.close()


def test_no_process_outlives_the_object() -> None:
    before = descendants()
    call = Killable(answer, 5.0)
    call(what="a")
    assert descendants() > before
    del call
    assert descendants() <= before


def test_no_process_outlives_this_one() -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from {__name__} import answer
from palaestra.envs.tools.killable import Killable
call = Killable(answer, 60.0)
print(call(what="a").split()[-1], flush=True)
import threading
threading.Thread(target=call, kwargs=dict(seconds=50.0), daemon=True).start()
import time; time.sleep(0.3)
os._exit(0)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    worker = int(told.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(worker)


def test_it_travels_as_the_function_and_the_time() -> None:
    again = pickle.loads(pickle.dumps(Killable(answer, 2.0)))
    assert (again.function, again.seconds) == (answer, 2.0)


def test_what_a_tool_prints_is_not_in_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    call = Killable(answer, 5.0)
    call(what="print")
    call.close()
    assert "printed" not in capfd.readouterr().out


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_time_out_is_a_time(timeout: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds above 0"):
        Tool(answer, timeout=timeout)


def test_a_tool_says_text() -> None:
    def mistaken() -> str:
        return 7  # type: ignore[return-value]

    with pytest.raises(TypeError, match="mistaken returned int"):
        Tool(mistaken).call({})
