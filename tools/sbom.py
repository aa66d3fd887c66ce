"""Write what a wheel brings: ``python tools/sbom.py VENV FOLDER``. VENV has the wheel and what it needs, and no more.

``sbom.cdx.json`` (CycloneDX), ``licences.txt``, and ``requirements.txt`` for pip-audit. The metadata of an environment
lacks the version of esl_apps, which pyproject.toml leaves to setup.cfg, and the scripts of others that the wheel has.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

#: Scripts of others in the wheel: their file in ``esl_apps``, the version that it names, name at npm, licence, address.
BUNDLED = (
    ("http/console/static/htmx.min.js", r'version:"([\d.]+)"', "htmx.org", "0BSD", "https://htmx.org"),
    ("http/phone/sip.js", r"SIP\.js ([\d.]+)", "sip.js", "MIT", "https://sipjs.com"),
)


def main(venv: Path, folder: Path) -> None:
    tools = Path(sys.executable).parent
    (site,) = venv.glob("lib/python3*/site-packages")
    (own,) = distributions(name="esl_apps", path=[str(site)])
    sbom = folder / "sbom.cdx.json"
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as project:
        project.write(project_table(own))
        project.flush()
        options = ["--mc-type", "application", "--output-reproducible", "--output-file", str(sbom)]
        command = [str(tools / "cyclonedx-py"), "environment", str(venv), "--pyproject", project.name, *options]
        subprocess.run(command, check=True)
    bom = json.loads(sbom.read_text())
    packages = [f"{part['name']}=={part['version']}" for part in bom["components"] if part["name"] != "esl_apps"]
    (folder / "requirements.txt").write_text("".join(f"{package}\n" for package in sorted(packages)))
    scripts = bundled(site / "esl_apps")
    add(bom, scripts)
    sbom.write_text(json.dumps(bom, indent=2, sort_keys=True) + "\n")
    licences = [str(tools / "pip-licenses"), "--python", str(venv / "bin/python"), "--with-urls", "--order", "license"]
    text = subprocess.check_output([*licences, "--format", "plain-vertical"], text=True).rstrip() + "\n"
    for script in scripts:
        (licence,) = script["licenses"]
        (address,) = script["externalReferences"]
        text += f"\n{script['name']}\n{script['version']}\n{licence['license']['id']}\n{address['url']}\n"
    (folder / "licences.txt").write_text(text)


def project_table(own: Distribution) -> str:
    """Return a pyproject.toml that says all, also what is dynamic in the real one."""
    needs = [need for need in own.requires or [] if "extra ==" not in need]
    said = {"name": "esl_apps", "version": own.version, "description": own.metadata["Summary"], "dependencies": needs}
    said["license"] = own.metadata["License-Expression"]
    # JSON's strings and lists are TOML's, too.
    return "[project]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in said.items())


def bundled(package: Path) -> list[dict[str, Any]]:
    """Return the scripts of others as components. :raises SystemExit: a file doesn't name its version."""
    components = []
    for file, pattern, name, licence, address in BUNDLED:
        match = re.search(pattern, (package / file).read_text())
        if match is None:
            raise SystemExit(f"{file}: names no version")
        components.append(
            {
                "type": "library",
                "bom-ref": f"{name}=={match[1]}",
                "name": name,
                "version": match[1],
                "purl": f"pkg:npm/{name}@{match[1]}",
                "licenses": [{"license": {"id": licence, "acknowledgement": "declared"}}],
                "externalReferences": [{"type": "website", "url": address}],
            }
        )
    return components


def add(bom: dict[str, Any], components: list[dict[str, Any]]) -> None:
    """Put components into a bill, as parts of the whole."""
    bom["components"] += components
    root = bom["metadata"]["component"]["bom-ref"]
    refs = [component["bom-ref"] for component in components]
    bom["dependencies"] += [{"ref": ref} for ref in refs]
    (whole,) = (one for one in bom["dependencies"] if one["ref"] == root)
    whole["dependsOn"] = sorted([*whole.get("dependsOn", []), *refs])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
