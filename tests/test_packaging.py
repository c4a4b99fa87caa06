"""The wheel holds everything: packages, device profiles, templates and entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

PROBE = """
import json, pathlib, edgesdk
from edgesdk.device_files import load_device, profile_names
from edgesdk.target import find_target, target_names
print(json.dumps({
    "home": str(pathlib.Path(edgesdk.__file__).parent),
    "profiles": [load_device(name).name for name in profile_names()],
    "targets": {name: type(find_target(name)).__module__ for name in target_names()},
    "templates": sorted(
        path.name for path in (pathlib.Path(edgesdk.__file__).parent / "report/templates").iterdir()
    ),
}))
"""


def probe(environment: dict[str, str], cwd: Path) -> dict[str, object]:
    import json

    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE],
        env={**os.environ, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_wheel_and_editable_install_know_the_same_devices_and_targets(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*build, str(tmp_path), str(CHECKOUT)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True, capture_output=True)

    from_wheel = probe({"PYTHONPATH": str(site)}, tmp_path)
    editable = probe({"PYTHONPATH": ""}, tmp_path)

    assert Path(str(from_wheel["home"])).is_relative_to(site)
    assert Path(str(editable["home"])) == CHECKOUT / "edgesdk"
    on_disk = sorted(path.stem for path in (CHECKOUT / "device_profiles").glob("*.toml"))
    assert from_wheel["profiles"] == editable["profiles"] == on_disk
    assert from_wheel["targets"] == editable["targets"]
    assert from_wheel["templates"] == ["report.css", "report.html.j2", "report.md.j2"]
    assert (site / "edgesdk" / "py.typed").is_file()
