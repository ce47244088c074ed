"""Documents: their links lead to files that a clone has."""

import re
import subprocess

import pytest

from tests.conftest import ROOT

LISTED = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
TRACKED = LISTED.stdout.split()
DOCUMENTS = [name for name in TRACKED if name.endswith(".md")]


@pytest.mark.skipif(LISTED.returncode != 0, reason="needs a clone")
def test_every_link_leads_to_a_file_of_the_repository():
    kept = {ROOT / name for name in TRACKED}
    lost = []
    for name in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text()):
            target = ((ROOT / name).parent / link).resolve()
            if "://" not in link and target not in kept and not any(target in file.parents for file in kept):
                lost.append(f"{name}: {link}")
    assert len(DOCUMENTS) > 10
    assert lost == []
