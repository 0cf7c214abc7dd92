"""Puts libkvrail.so into the wheel.

The library is the one that `cargo build --release -p kvrail-capi` has made in this checkout, or the
one that KVRAIL_LIBRARY names. A wheel has no Python code that was compiled, so one wheel serves all
versions of Python; the library is for one machine type and one C library, so the wheel has the
platform's tag.
"""

import os
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LibraryHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        workspace = Path(self.root).parents[2]
        target = Path(os.environ.get("CARGO_TARGET_DIR", workspace / "target"))
        library = Path(os.environ.get("KVRAIL_LIBRARY", target / "release" / "libkvrail.so"))
        if not library.is_file():
            raise FileNotFoundError(
                f"{library} is not there: run cargo build --release -p kvrail-capi first, or set KVRAIL_LIBRARY"
            )
        build_data["force_include"][str(library)] = "kvrail/libkvrail.so"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
