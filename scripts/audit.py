"""Audits a lock file: known vulnerabilities by pip-audit, and where no advisory service can be reached, says so.

    python scripts/audit.py requirements/dev.txt

Exit code 1 when a locked release is known to be vulnerable or was yanked. Without an advisory service only yanked
releases can be told (the package index marks them); then the closing line says that vulnerabilities were not audited.
"""

from __future__ import annotations

import json
import subprocess
import sys

#: Where pip-audit can ask, in this order: the package index's own advisories, then the OSV database.
SERVICES = ("pypi", "osv")


def advisories(lock: str, service: str) -> tuple[int, int, list[str]]:
    """How many releases were audited, how many could not be, and the vulnerable ones, one line each."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command += ["--vulnerability-service", service]
    done = subprocess.run([*command, "-f", "json", "-r", lock], capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return 0, 1, []
    skipped = sum("skip_reason" in each for each in found)
    vulnerable = [
        f"{each['name']} {each['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no release'}"
        for each in found
        for flaw in each.get("vulns", ())
    ]
    return len(found) - skipped, skipped, vulnerable


def yanked(lock: str) -> list[str]:
    """Lines by which pip tells that a locked release was withdrawn."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--require-hashes",
    ]
    done = subprocess.run([*command, "-r", lock], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"audit: {lock} can't be resolved as it is locked:\n{done.stderr[-2000:]}")
    return [line for line in (done.stdout + done.stderr).splitlines() if "yanked" in line]


def main(lock: str) -> int:
    """Audit one lock file and say what was found."""
    audited, skipped, found = 0, 0, list[str]()
    for service in SERVICES:
        audited, skipped, found = advisories(lock, service)
        if audited:
            break
    if not audited:
        found += yanked(lock)
    for line in found:
        print(f"audit: {line}", file=sys.stderr)
    if audited:
        print(f"audit: {audited} releases audited ({skipped} unknown to the advisory service), {len(found)} findings")
    else:
        print(
            f"audit: no advisory service can be reached from here, so known vulnerabilities were NOT audited; "
            f"every release is locked by hash, {len(found)} yanked"
        )
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/audit.py LOCK_FILE")
    sys.exit(main(sys.argv[1]))
