"""The agent as one file that Python runs by itself: ``python agent.pyz OUT -o measurement.json``.

``python -m edgesdk.profiling.agent_file agent.pyz`` writes it, for a board without ssh.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

NAME = "agent.pyz"

_PACKAGE = Path(__file__).with_name("agent")
_MAIN = "import sys\n\nfrom agent.program import main\n\nsys.exit(main())\n"


def agent_bytes() -> bytes:
    """Return the agent's modules as a zip archive that Python runs (PEP 441), always the same."""
    modules = {f"agent/{path.name}": path.read_bytes() for path in sorted(_PACKAGE.glob("*.py"))}
    del modules["agent/__main__.py"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"__main__.py": _MAIN.encode(), **modules}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(agent_bytes())
