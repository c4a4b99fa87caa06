"""A delegate's flatbuffer as JSON: by the schema that ExecuTorch ships, and the ``flatc`` it ships.

``flatc`` runs in a process of its own, so a damaged file cannot crash us.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from edgesdk.errors import ArtifactError

_FLATC_TIMEOUT_S = 120.0
_NON_FINITE = re.compile(r"(?<=[:\[,])(\s*)(-?)(inf|nan)(?=\s*[,\]}])")


def decode(flatbuffer: bytes, schema: bytes, *, what: str) -> Any:
    """Return a flatbuffer's content in Python's own types; ``what`` names it in errors.

    Raises ``ArtifactError`` where ``flatc`` cannot read it.
    """
    from executorch.exir._serialize._flatbuffer import _get_flatc_path

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(schema)
        (folder / "graph.bin").write_bytes(flatbuffer)
        options = ["--json", "--strict-json", "--defaults-json", "--raw-binary", "-o", name]
        files = [str(folder / "schema.fbs"), "--", str(folder / "graph.bin")]
        result = subprocess.run(  # noqa: S603 - a fixed program, its arguments are our own paths
            [_get_flatc_path(), *options, *files],
            capture_output=True,
            timeout=_FLATC_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            raise ArtifactError(
                f"the program's {what} payload is damaged: flatc ended with exit code "
                f"{result.returncode}",
                next_step="copy the artifact again, or compile it anew",
            )
        text = (folder / "graph.json").read_text(encoding="utf-8")
    # flatc writes C's names for numbers that JSON has no word for; Python's parser knows others.
    names = {"inf": "Infinity", "nan": "NaN"}
    return json.loads(_NON_FINITE.sub(lambda m: m[1] + m[2] + names[m[3]], text))
