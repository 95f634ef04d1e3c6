"""A line is out when the write returns; a slow reader keeps only its writer waiting; a line is never torn."""

from __future__ import annotations

import io
import os
import pty
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from pipeline.core.errors import SinkClosed, SinkError, WriteError
from stages.sinks.opening import open_output
from stages.sinks.output import Output, StreamOutput


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            pass


def fill(fd: int) -> int:
    """Fill a pipe to the last byte and return how many it took."""
    before = os.get_blocking(fd)
    os.set_blocking(fd, False)
    taken = 0
    for size in (65536, 1):
        try:
            while True:
                taken += os.write(fd, b"." * size)
        except BlockingIOError:
            pass
    os.set_blocking(fd, before)
    return taken


def take(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_slow_reader_blocks_the_writer_and_not_the_loop(pipe: tuple[int, int], blocking: bool) -> None:
    reading, writing = pipe
    os.set_blocking(writing, blocking)
    filled = fill(writing)
    line = b"x" * 300_000 + b"\n"
    done = anyio.Event()

    async def writer() -> None:
        await Output(writing, "pipe", owned=False).write(line)
        done.set()

    received = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        assert take(reading, filled) == b"." * filled
        while len(received) < len(line):
            await anyio.wait_readable(reading)
            received += os.read(reading, 65536)
    assert received == line
    assert os.get_blocking(writing) is blocking


async def test_a_write_that_waits_for_its_reader_is_cancelled_at_once_and_writes_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    filled = fill(writing)
    output = Output(writing, "pipe", owned=True)
    with anyio.move_on_after(0) as scope:
        await output.write(b"first\n")
    assert scope.cancelled_caught
    take(reading, filled)
    await output.write(b"second\n")
    await output.aclose()
    assert os.read(reading, 100) == b"second\n"
    assert os.read(reading, 100) == b""


async def test_a_line_that_was_cut_is_finished_before_the_next_one(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    filled = fill(writing)
    output = Output(writing, "pipe", owned=True)
    take(reading, 4096)  # room for the first piece
    line = b"x" * 20_000 + b"\n"
    with anyio.move_on_after(0) as scope:
        await output.write(line)
    assert scope.cancelled_caught
    rest = b""
    take(reading, filled - 4096)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(output.write, b"next\n")
        rest = take(reading, 4096)
        while len(rest) < len(line) + 5:
            await anyio.wait_readable(reading)
            rest += os.read(reading, 65536)
    assert rest == line + b"next\n"


async def test_a_line_that_was_cut_is_finished_on_closing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    filled = fill(writing)
    output = Output(writing, "pipe", owned=True)
    take(reading, 4096)
    line = b"x" * 20_000 + b"\n"
    with anyio.move_on_after(0):
        await output.write(line)
    take(reading, filled - 4096)
    await output.aclose()
    assert take(reading, len(line)) == line
    assert os.read(reading, 1) == b""


async def test_closing_does_not_wait_for_a_reader_that_takes_nothing(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.sinks.output.LAST_WAIT", 0.0)
    reading, writing = pipe
    fill(writing)
    output = Output(writing, "pipe", owned=True)
    take(reading, 4096)
    with anyio.move_on_after(0):
        await output.write(b"x" * 20_000)
    await output.aclose()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)


async def test_a_reader_that_has_left_closes_the_sink(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing, "stdout", owned=True)
    os.close(reading)
    with pytest.raises(SinkClosed, match="stdout: the reader has closed it") as caught:
        await output.write(b"line\n")
    assert isinstance(caught.value, BrokenPipeError)
    await output.aclose()


async def test_a_reader_that_leaves_while_we_wait_closes_the_sink(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    fill(writing)
    output = Output(writing, "stdout", owned=True)

    async def writer() -> None:
        with pytest.raises(SinkClosed):
            await output.write(b"line\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer)
        await wait_all_tasks_blocked()
        os.close(reading)


async def test_a_socket_is_written_like_a_pipe() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = b"x" * 1_000_000 + b"\n"
        received = b""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Output(ours.fileno(), "socket", owned=False).write, line)
            while len(received) < len(line):
                await anyio.wait_readable(theirs)
                received += theirs.recv(65536)
        assert received == line


async def test_a_full_device_is_a_write_error() -> None:
    output = open_output("/dev/full", "create", ())
    with pytest.raises(WriteError, match="/dev/full: writing failed: no space left on device"):
        await output.write(b"line\n")
    await output.aclose()


async def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = open_output(str(tmp_path / "out"), "create", ())
    await output.write(b"whole\n")
    write = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) <= 3:
            raise OSError(28, "No space left on device")
        return write(fd, data[:3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WriteError, match="no space left on device"):
        await output.write(b"torn\n")
    monkeypatch.undo()
    await output.aclose()
    assert (tmp_path / "out").read_bytes() == b"whole\n"


async def test_two_writers_at_once_are_refused(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    output = Output(pipe[1], "pipe", owned=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(output.write, b"one\n")
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await output.write(b"two\n")
        tasks.cancel_scope.cancel()


async def test_a_new_file_is_for_its_owner_to_write_and_for_all_to_read(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        output = open_output(str(tmp_path / "out"), "create", ())
    finally:
        os.umask(mask)
    await output.aclose()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        ("append", None, b"line\n"),
        ("append", b"", b"line\n"),
        ("append", b"old\n", b"old\nline\n"),
        ("append", b"old", b"old\nline\n"),
        ("overwrite", None, b"line\n"),
        ("overwrite", b"old\n", b"line\n"),
        ("create", None, b"line\n"),
    ],
)
async def test_modes(tmp_path: Path, mode: str, before: bytes | None, after: bytes) -> None:
    path = tmp_path / "out"
    if before is not None:
        path.write_bytes(before)
    output = open_output(str(path), mode, ())
    await output.write(b"line\n")
    await output.aclose()
    assert path.read_bytes() == after


def test_what_would_destroy_something_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("precious\n")
    os.link(path, tmp_path / "link")
    for output, mode, inputs, text in (
        (path, "create", (), f"{path}: exists; add to it (--append), replace it (--overwrite), or name another file"),
        (path, "overwrite", ("-", str(path)), f"{path}: is the input {path}; write to another file"),
        (
            tmp_path / "link",
            "append",
            (str(path), str(tmp_path / "gone")),
            f"{tmp_path}/link: is the input {path}; write to another file",
        ),
        (tmp_path, "overwrite", (), f"{tmp_path}: is a directory; name a file in it, such as {tmp_path}/out.jsonl"),
        (tmp_path / "no" / "out", "create", (), f"{tmp_path}/no/out: the directory {tmp_path}/no does not exist"),
    ):
        with pytest.raises(SinkError) as caught:
            open_output(str(output), mode, inputs)
        assert str(caught.value) == text
    assert path.read_text() == "precious\n"


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SinkError, match="out: permission denied"):
        open_output(str(tmp_path / "out"), "create", ())


async def test_stdout_that_is_an_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x\n")
    with path.open("a") as file:
        monkeypatch.setattr("sys.stdout", file)
        with pytest.raises(SinkError, match=r"stdout: is the input .*a\.txt; write to another file"):
            open_output("-", "create", (str(path),))
        output = open_output("-", "create", ())
        await output.write(b"y\n")
        await output.aclose()
        assert path.read_text() == "x\ny\n"
        os.fstat(file.fileno())


async def test_a_stdout_that_is_closed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stdout in (None, closed):
        monkeypatch.setattr("sys.stdout", stdout)
        with pytest.raises(SinkError, match="stdout is closed"):
            open_output("-", "create", ())


async def test_a_stdout_without_a_descriptor_is_written_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    output = open_output("-", "create", ())
    assert isinstance(output, StreamOutput)
    await output.write("é\n".encode())
    await output.aclose()
    assert stdout.getvalue() == "é\n"


async def test_a_terminal_that_is_stopped_does_not_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0), os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        output = open_output("-", "create", ())
        with anyio.move_on_after(0.05) as scope:
            for _ in range(100):
                await output.write(b"x" * 4000 + b"\n")  # nobody reads, as after Ctrl-S
        assert scope.cancelled_caught
        assert os.get_blocking(terminal.fileno())
        monkeypatch.setattr("stages.sinks.output.LAST_WAIT", 0.0)
        await output.aclose()
