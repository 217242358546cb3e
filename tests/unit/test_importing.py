import os
import sys
from pathlib import Path

import pytest

from nasface.importing import NotImportableError, import_attr


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])


def test_installed_modules_and_those_of_the_working_directory_are_found():
    Path("some_own_module.py").write_text("class A:\n    b = 7\n")
    assert import_attr("os:path") is os.path
    assert import_attr("some_own_module:A.b") == 7
    assert sys.path.count(str(Path.cwd())) == 1
    import_attr("os:path")
    assert sys.path.count(str(Path.cwd())) == 1


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("no_such_module:x", "no_such_module"),
        ("os:absent", "absent"),
        ("exits:x", "SystemExit: 3"),
        ("broken:x", "SyntaxError"),
        ("raises:x", "ValueError: two lines"),
        (":x", ":x"),
    ],
)
def test_whatever_goes_wrong_is_one_exception_that_says_it_in_one_line(name: str, fact: str):
    Path("exits.py").write_text("import sys\nsys.exit(3)\n")
    Path("broken.py").write_text("def\n")
    Path("raises.py").write_text("raise ValueError('two\\nlines')\n")
    with pytest.raises(NotImportableError) as err:
        import_attr(name)
    assert fact in str(err.value)
    assert "\n" not in str(err.value)
