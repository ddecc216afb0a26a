"""Compile a kernel once, keep its machine code on disk, and hand out its address.

Numba compiles the Python of a kernel to LLVM. The cache holds a plain object file with one function in C's calling
convention, and its SHA-256. A later process loads it through llvmlite and never imports Numba, which takes a second.
(Numba's own cache checks the time stamp of only the one file that defines a function, and unpickles what it finds.)

The files are in a directory that is private to the user, one per set of kernel sources, versions, processor and vector
width. ``REFNET_CACHE`` names another directory, or is ``off``.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
        file = ".".join(filter(None, (module, name, element, "o")))
        return _load(kept(file, name, partial(_compile, module, name, element)))


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
        directory = cache_directory()
        path = None if directory is None else directory / file
        code = None if path is None else _read(path)
        if code is None:
            for listener in _listeners:
                listener(name)
            with _no_collection():
                code = compile()
            if path is not None:
                _write(path, code)
        return code


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
    chosen = os.environ.get("REFNET_CACHE")
    if chosen == "off":
        return None
    if chosen:
        root = Path(chosen)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        root = Path(home) / "refnet"
    directory = root / _key()
    return directory if _private(root) and _private(directory) else None


def _private(directory: Path) -> bool:
    """Make the directory if needed. Whether it is private to this user."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return own and not status.st_mode & 0o022


def _read(file: Path) -> bytes | None:
    """The machine code in a file; None if there is no file, or its contents are not what was written."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(file: Path, code: bytes) -> None:
    """Write the whole file or nothing; without it the next process compiles again."""
    with suppress(OSError):
        remove_left_over(str(file.parent), r".*\.tmp")
        handle, name = tempfile.mkstemp(".tmp", dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as temporary:
                # If another process takes this file for one left over, the cache is without it this time.
                hold(handle)
                temporary.write(hashlib.sha256(code).digest() + code)
                temporary.flush()
                os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise


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
