"""Compile a kernel once, keep its machine code on disk, and hand out its address.

Numba compiles the Python of a kernel to LLVM. The cache holds a plain object file with one function in C's calling
convention, and a SHA-256. A later process loads it through llvmlite and never imports Numba, which takes a second.
(Numba's own cache checks the time stamp of only the one file that defines a function, and unpickles what it finds.)

The files are in a directory that is private to the user, one per set of kernel sources, versions, processor and vector
width. ``REFNET_CACHE`` names another directory, or is ``off``. Where there is no such directory, or it cannot be
written, each process compiles again, and the log "refnet" gets one warning that says why.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from refnet_kernels.system.forks import making
from refnet_kernels.system.left_over import hold, remove_left_over
from refnet_kernels.target import CPU, FEATURES, LANES

#: The name of each compiled function, in its own object file.
_ENTRY = "refnet_entry"
_DIGEST_BYTES = 32

_listeners: list[Callable[[str], None]] = []
_engines: list[Any] = []
#: The files of the cache that this process has written.
_written: set[str] = set()


def on_compile(listener: Callable[[str], None]) -> None:
    """Call ``listener(name)`` before a kernel is compiled (not when it comes from the cache)."""
    _listeners.append(listener)


@cache
def function_address(module: str, name: str, element: str | None = None) -> int:
    """The address of a function's machine code, in C's calling convention.

    Parameters
    ----------
    module, name : str
        Of a function in Numba's subset of Python, whose ``signature`` attribute is its Numba signature.
    element : {"float32", "float64"}, optional
        The type of the arrays' elements, for a `refnet_kernels.cpu.kernel.kernel`.
    """
    with making:
        return _load(kept(_file_of(module, name, element), name, partial(_compile, module, name, element)))


def is_compiled_here(module: str, name: str, element: str | None = None) -> bool:
    """Whether this process has compiled a function and kept its machine code, so that no later process has to."""
    return _file_of(module, name, element) in _written


def _file_of(module: str, name: str, element: str | None) -> str:
    return ".".join(filter(None, (module, name, element, "o")))


def kept(file: str, name: str, compile: Callable[[], bytes]) -> bytes:
    """The machine code in a file of the cache; it is compiled and stored first if it is not there yet.

    Parameters
    ----------
    file : str
        Name of the file in the cache's directory.
    name : str
        Name of the kernel, for the listeners of `on_compile`.
    compile : callable
        Makes the machine code.
    """
    with making:
        directory, problem = _place()
        path = None if directory is None else directory / file
        code = None if path is None else _read(path)
        if code is None:
            for listener in _listeners:
                listener(name)
            _say_compiling()
            with _no_collection(), _quiet():
                code = compile()
            if path is not None:
                problem = _write(path, code)
                if problem is None:
                    _written.add(file)
            if problem is not None:
                _say_once(problem)
        return code


def read_note(file: str) -> bytes | None:
    """What `write_note` wrote beside the machine code; None if it is not there, or is damaged."""
    directory = cache_directory()
    return None if directory is None else _read(directory / file)


def write_note(file: str, data: bytes) -> str | None:
    """Keep data beside the machine code, whole or not at all. Where it is; None if it cannot be kept."""
    directory = cache_directory()
    return None if directory is None or _write(directory / file, data) is not None else str(directory / file)


@cache
def _say_compiling() -> None:
    """Once per process: the first forward on a machine takes some seconds, and then no other one does."""
    text = "compiling kernels for this machine, once"
    logging.getLogger("refnet").info("%s", text)
    # The command line listens, and names each kernel.
    if not _listeners and sys.stderr is not None and sys.stderr.isatty():
        print(f"refnet: {text} ...", file=sys.stderr, flush=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Numba's own diary, tens of thousands of lines, out of the log of a program that logs everything.

    A level that the program itself gave Numba's logger stays.
    """
    log = logging.getLogger("numba")
    if log.level != logging.NOTSET:
        yield
        return
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(logging.NOTSET)


@cache
def _say_once(problem: str) -> None:
    # A log, not a warning: nothing is wrong with any result, and programs that make warnings errors go on.
    logging.getLogger("refnet").warning("compiled kernels are not kept for the next process: %s", problem)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave garbage for later: Numba makes so many objects that the collector takes 4% of the time to compile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def _key() -> str:
    """A hash of everything that the machine code depends on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    versions = [version(name) for name in ("numba", "llvmlite", "numpy")]
    digest.update(repr((versions, sys.version, CPU, FEATURES, LANES)).encode())
    return digest.hexdigest()[:24]


def cache_directory() -> Path | None:
    """The directory of the machine code; None if there is none that is private to the user."""
    return _place()[0]


def _place() -> tuple[Path | None, str | None]:
    """The directory of the machine code, or why there is none; neither where the user wants none."""
    chosen = os.environ.get("REFNET_CACHE")
    if chosen == "off":
        return None, None
    root = Path(chosen) if chosen else _default_root()
    if root is None:
        return None, "there is no home directory (HOME); REFNET_CACHE can name another place, or be off"
    directory = root / _key()
    problem = _not_private(root) or _not_private(directory)
    return (directory, None) if problem is None else (None, problem)


def _default_root() -> Path | None:
    """The place in the user's home. A home that is not there, or a relative path, is nobody's."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "refnet"
    home = os.path.expanduser("~") if os.environ.get("HOME") != "" else ""
    return Path(home) / ".cache" / "refnet" if os.path.isabs(home) and os.path.isdir(home) else None


def _not_private(directory: Path) -> str | None:
    """Make the directory if needed. Why it is not private to this user; None if it is."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        return f"{directory} cannot be made ({error.strerror})"
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return f"{directory} belongs to another user"
    if directory.is_symlink():
        return f"{directory} is a symbolic link"
    if status.st_mode & 0o022:
        return f"others may write to {directory} (chmod go-w {directory})"
    return None


def _read(file: Path) -> bytes | None:
    """The machine code in a file; None if there is no file, or its contents are not what was written."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return code if _digest(file, code) == digest else None


def _digest(file: Path, code: bytes) -> bytes:
    """SHA-256 of the name, too: a kernel in the place of another would be run with the other's arguments."""
    return hashlib.sha256(file.name.encode() + b"\0" + code).digest()


def _write(file: Path, code: bytes) -> str | None:
    """Write the whole file or nothing; without it the next process compiles again. Why there is none, if there is."""
    try:
        remove_left_over(str(file.parent), r".*\.tmp")
        handle, name = tempfile.mkstemp(".tmp", dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as temporary:
                # If another process takes this file for one left over, the cache is without it this time.
                hold(handle)
                temporary.write(_digest(file, code) + code)
                temporary.flush()
                os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        return f"{file.parent} cannot be written ({error.strerror})"
    return None


def _target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=CPU, features=FEATURES, opt=3, reloc="static", codemodel="jitdefault")


def _compile(module: str, name: str, element: str | None = None) -> bytes:
    """An object file with the function, which needs neither Numba nor Python."""
    with making:
        import numba

        function = getattr(importlib.import_module(module), name)
    signature = function.signature if element is None else function.signatures[element]
    compiled = numba.cfunc(signature, error_model="numpy")(function)
    # The function that Numba's C wrapper calls, in Numba's convention: where to put the result, where to put an
    # exception, then the arguments.
    native = compiled.native_name.removeprefix("cfunc.")
    passed = [kind for kind in signature.args if not isinstance(kind, numba.types.NumberClass)]
    kinds = ["ptr" if isinstance(kind, numba.types.CPointer) else "i64" for kind in passed]
    parameters = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(kinds))
    # An element has a type but no value.
    arguments = parameters + ", ptr null" * (len(signature.args) - len(passed))
    entry = f"""
define void @{_ENTRY}({parameters}) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @"{native}"(ptr %result, ptr %error, {arguments})
  ret void
}}
"""
    code = llvm.parse_assembly(compiled.inspect_llvm() + entry)
    for symbol in [*code.functions, *code.global_variables]:
        if not symbol.is_declaration and symbol.name != _ENTRY:
            symbol.linkage = "internal"
    machine = _target_machine()
    # Remove everything that only Numba's wrappers need.
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(code, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    emitted: bytes = machine.emit_object(code)
    return emitted


def _load(code: bytes) -> int:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # The code lives as long as its engine does.
    _engines.append(engine)
    return int(engine.get_function_address(_ENTRY))
