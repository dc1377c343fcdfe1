"""gdbhyp as people install it: from a wheel, editable, or as a checkout; and what loading it costs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import tools

# In a copy of the sources nothing is left behind by a build.
SOURCES = ("gdbhyp", "pyproject.toml", "README.md", "LICENSE")
DEPENDENCIES = ("tabulate", "pygments")
SYNDROME = "hyp-esr 0x93c58045"
ENVIRONMENT = ("GDBHYP_SITE", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH")


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment of a person who has set nothing up but ``more``."""
    return {**{k: v for k, v in os.environ.items() if k not in ENVIRONMENT}, **more}


def copy_sources(folder: Path) -> Path:
    """Copy what belongs to a checkout and goes into a package."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        source = tools.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


def add_dependencies(site: Path) -> None:
    """Put this Python's copies of the dependencies into another site-packages folder, without a network."""
    for name in DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        found = origin.parent if origin.stem == "__init__" else origin
        (site / found.name).symlink_to(found)


@dataclass
class Venv:
    """A virtual environment without pip."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python3*/site-packages"))


def make_venv(folder: Path) -> Venv:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    venv = Venv(folder)
    add_dependencies(venv.site)
    return venv


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build_wheel(sources: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the wheel of ``sources`` into ``folder``, with the setuptools at hand, or with one that pip fetches."""
    build = ["wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(sources)]
    at_hand = importlib.util.find_spec("setuptools") and importlib.util.find_spec("wheel")
    return pip(*build, *(["--no-build-isolation"] if at_hand else []))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel; built with the setuptools at hand, or with one that pip fetches."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = copy_sources(folder / "sources")
    made = build_wheel(sources, folder)
    if made.returncode:
        tools.missing(f"setuptools with wheel ({made.stderr.strip().splitlines()[-1:]})")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """A clean environment into which the wheel was installed."""
    venv = make_venv(tmp_path_factory.mktemp("installed") / "venv")
    done = pip("--python", str(venv.python), "install", "--no-deps", "--no-index", "--quiet", str(wheel))
    assert done.returncode == 0, done.stderr
    return venv


def gdbhyp(venv: Venv, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed program."""
    environment = clean_environment() if path is None else clean_environment(PATH=path)
    command = [str(venv.folder / "bin" / "gdbhyp"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


def in_gdb(commands: list[str], environment: Mapping[str, str], folder: Path) -> str:
    """Run commands in the distribution's GDB, in a folder that has nothing to do with gdbhyp."""
    command = [tools.gdb_multiarch(), "-nx", "-q", "-batch", *(word for c in commands for word in ("-ex", c))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=folder, timeout=120
    )
    return done.stdout + done.stderr


def check_loaded(output: str) -> None:
    assert "Traceback" not in output
    assert "Error" not in output
    assert "[31:26]  EC " in output


def packaged(names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("gdbhyp/") and not name.endswith("/")}


def in_tree() -> set[str]:
    """Return the files of the package that are no caches."""
    files = (p for p in (tools.ROOT / "gdbhyp").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {str(p.relative_to(tools.ROOT)) for p in files}


def test_the_wheel_is_complete(wheel: Path) -> None:
    assert packaged(zipfile.ZipFile(wheel).namelist()) == in_tree()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    if not importlib.util.find_spec("setuptools"):
        tools.missing("setuptools")
    folder = tmp_path_factory.mktemp("sdist")
    program = "import sys, setuptools.build_meta as build; print(build.build_sdist(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=copy_sources(folder / "sources"),
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.tar.gz"))


def test_the_source_distribution_is_complete(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        files = [
            name
            for name, member in zip(names, archive.getmembers(), strict=True)
            if member.isfile() and name.startswith("gdbhyp/")
        ]
    assert packaged(files) == in_tree()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(names)


def test_a_wheel_of_the_source_distribution_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    made = build_wheel(sdist, tmp_path)
    assert made.returncode == 0, made.stderr
    (own,) = tmp_path.glob("*.whl")
    assert packaged(zipfile.ZipFile(own).namelist()) == packaged(zipfile.ZipFile(wheel).namelist())


def test_with_its_own_gdb(wheel: Path, tmp_path: Path) -> None:
    """pip install 'gdbhyp[gdb]' in a clean environment, dependencies and all, run as pipx does it: by a link."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    venv = Venv(tmp_path / "venv")
    done = pip("--python", str(venv.python), "install", "--quiet", f"gdbhyp[gdb] @ {wheel.as_uri()}")
    if done.returncode:
        tools.missing(f"a package index ({done.stderr.strip().splitlines()[-1:]})")
    link = tmp_path / "bin" / "gdbhyp"
    link.parent.mkdir()
    link.symlink_to(venv.folder / "bin" / "gdbhyp")
    command = [str(link), "gdb", "-nx", "-batch", "-ex", "show version", "-ex", SYNDROME]
    said = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), cwd=tmp_path)
    assert "GNU gdb (GDB) 1" in said.stdout
    check_loaded(said.stdout + said.stderr)
    assert find_own_gdb(said.stdout) >= 16


def find_own_gdb(version: str) -> int:
    """Return the major version in what 'show version' printed."""
    return int(version.split("GNU gdb (GDB) ")[1].split(".")[0])


def test_a_wheel_in_gdb(installed: Venv, tmp_path: Path) -> None:
    said = gdbhyp(installed, "gdbinit")
    path = said.stdout.strip()
    assert Path(path).is_relative_to(installed.site)
    check_loaded(in_gdb([f"source {path}", SYNDROME], clean_environment(), tmp_path))


def test_an_editable_install_in_gdb(tmp_path: Path) -> None:
    """An editable install is a line in a .pth file; a person activates the environment and starts GDB."""
    sources = copy_sources(tmp_path / "sources")
    venv = make_venv(tmp_path / "venv")
    (venv.site / "__editable__.gdbhyp.pth").write_text(f"{sources}\n")
    path = sources / "gdbhyp" / "gdbinit.py"
    environment = clean_environment(VIRTUAL_ENV=str(venv.folder))
    check_loaded(in_gdb([f"source {path}", SYNDROME], environment, tmp_path))


def test_a_checkout_in_gdb(tmp_path: Path) -> None:
    sources = copy_sources(tmp_path / "with a space" / "sources")
    make_venv(sources / ".venv")
    path = sources / "gdbhyp" / "gdbinit.py"
    check_loaded(in_gdb([f"source {path}", SYNDROME], clean_environment(), tmp_path))


def test_the_environments_packages_go_first(tmp_path: Path) -> None:
    """The distribution's own tabulate or pygments may be older than what gdbhyp needs."""
    sources = copy_sources(tmp_path / "sources")
    venv = make_venv(sources / ".venv")
    path = sources / "gdbhyp" / "gdbinit.py"
    ask = (
        f"python import tabulate, pygments; assert {str(venv.site)!r} in tabulate.__file__, tabulate.__file__"
    )
    assert in_gdb([f"source {path}", ask], clean_environment(), tmp_path) == ""


def test_loading_twice(installed: Venv, tmp_path: Path) -> None:
    source = f"source {gdbhyp(installed, 'gdbinit').stdout.strip()}"
    once = in_gdb([source, "python import sys; print(sys.path)", SYNDROME], clean_environment(), tmp_path)
    twice = in_gdb(
        [source, source, "python import sys; print(sys.path)", SYNDROME], clean_environment(), tmp_path
    )
    assert once == twice
    check_loaded(twice)


def test_sourced_by_another_script(installed: Venv, tmp_path: Path) -> None:
    """A person's own initialisation in Python sources the plugin; GDB's __file__ is then that script's."""
    own = tmp_path / "own.py"
    own.write_text(f"import gdb\ngdb.execute({'source ' + gdbhyp(installed, 'gdbinit').stdout.strip()!r})\n")
    check_loaded(in_gdb([f"source {own}", SYNDROME], clean_environment(), tmp_path))


def test_a_missing_dependency_is_one_sentence(installed: Venv, tmp_path: Path) -> None:
    path = gdbhyp(installed, "gdbinit").stdout.strip()
    absent = "python import sys; sys.modules['pygments'] = None; sys.modules['pygments.console'] = None"
    output = in_gdb([f"source {path}", "set hyp colour on", absent, SYNDROME], clean_environment(), tmp_path)
    lines = [line for line in output.splitlines() if "missing" in line]
    assert lines == [
        "pygments is missing: activate the virtual environment that gdbhyp is installed in and start GDB again, "
        "or start GDB with 'gdbhyp gdb'"
    ]
    assert "Traceback" not in output
    assert "Error occurred in Python" not in output


FITS = "VERSION 13.1\nAARCH64"
TOO_OLD = "VERSION 11.2\nAARCH64"
FOREIGN = "VERSION 13.1"
NO_PYTHON = "Python scripting is not supported in this copy of GDB."


def fake_gdbs(folder: Path, answers: Mapping[str, str]) -> str:
    """Make programs that answer the probe as said, and else say who they are; return the PATH with them alone."""
    folder.mkdir()
    for name, answer in answers.items():
        program = folder / name
        program.write_text(
            f'#!{shutil.which("sh")}\ncase "$*" in\n*-batch*) printf \'%s\\n\' "{answer}";;\n'
            f'*) echo "{name} runs with $*";;\nesac\n'
        )
        program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ({"gdb-multiarch": FITS, "gdb": FITS}, "gdb-multiarch"),
        ({"gdb-multiarch": TOO_OLD, "gdb": FITS}, "gdb"),
        ({"gdb-multiarch": NO_PYTHON, "gdb": "VERSION 15.0.50.20240403-git\nAARCH64"}, "gdb"),
        ({"gdb": FITS}, "gdb"),
    ],
)
def test_the_gdb_that_fits(installed: Venv, tmp_path: Path, answers: dict[str, str], chosen: str) -> None:
    said = gdbhyp(installed, "gdb", "-q", "program", path=fake_gdbs(tmp_path / "bin", answers))
    path = gdbhyp(installed, "gdbinit").stdout.strip()
    assert said.stdout == f"{chosen} runs with -iex source {path} -q program\n"
    assert said.returncode == 0


def test_the_environments_own_gdb_goes_first(installed: Venv, tmp_path: Path) -> None:
    own = installed.folder / "bin" / "gdb"
    fake_gdbs(tmp_path / "own", {"gdb": FITS})
    shutil.copy(tmp_path / "own" / "gdb", own)
    try:
        path = fake_gdbs(tmp_path / "bin", {"gdb-multiarch": FITS})
        assert gdbhyp(installed, "gdb", path=path).stdout.startswith("gdb runs with -iex")
    finally:
        own.unlink()


@pytest.mark.parametrize(
    ("answers", "tried"),
    [
        ({}, "no gdb-multiarch and no gdb is installed"),
        ({"gdb": FOREIGN}, "{bin}/gdb does not know AArch64"),
        (
            {"gdb-multiarch": TOO_OLD, "gdb": NO_PYTHON},
            "{bin}/gdb-multiarch is older than GDB 12; {bin}/gdb is built without Python",
        ),
    ],
)
def test_no_gdb_that_fits(installed: Venv, tmp_path: Path, answers: dict[str, str], tried: str) -> None:
    said = gdbhyp(installed, "gdb", path=fake_gdbs(tmp_path / "bin", answers))
    assert said.stdout == ""
    assert said.stderr == (
        f"gdbhyp: no GDB here can debug AArch64: {tried.format(bin=tmp_path / 'bin')}. Install one with "
        "'apt install gdb-multiarch' or 'pip install gdbhyp[gdb]'\n"
    )
    assert said.returncode == 1


def test_gdbs_own_arguments(installed: Venv) -> None:
    """What follows goes to GDB, its options and its exit status among it."""
    tools.gdb_multiarch()
    assert gdbhyp(installed, "gdb", "--version").stdout.startswith("GNU gdb")
    done = gdbhyp(installed, "gdb", "-nx", "-batch", "-ex", SYNDROME, "-ex", "python gdb.execute('quit 7')")
    check_loaded(done.stdout + done.stderr)
    assert done.returncode == 7


# What may be imported by ``source gdbinit.py``, and by a syndrome's decoding: the rest waits until it is needed.
AT_SOURCE = {"gdbhyp", "gdbhyp.errors", "gdbhyp.gdbinit", "gdbhyp.plugin", "gdbhyp.commands"}
ROOMS_AT_SOURCE = {"errors", "escaping", "plugin", "commands"}
ROOMS_OF_ESR = {"errors", "escaping", "cli", "commands", "analyses", "arch", "render"}
HEAVY = {"argparse", "tabulate", "pygments", "json", "typing_extensions", "importlib.metadata"}
TABLES = {"gdbhyp.arch.registers", "gdbhyp.arch.stage1", "gdbhyp.arch.stage2", "gdbhyp.engine"}


def rooms(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.startswith("gdbhyp.")}


def test_what_loading_the_plugin_imports(installed: Venv, tmp_path: Path) -> None:
    path = gdbhyp(installed, "gdbinit").stdout.strip()
    names = "python import sys; print(chr(10).join(sorted(sys.modules)))"
    bare = set(in_gdb([names], clean_environment(), tmp_path).splitlines())
    loaded = set(in_gdb([f"source {path}", names], clean_environment(), tmp_path).splitlines()) - bare
    assert rooms(loaded) <= ROOMS_AT_SOURCE
    assert not loaded & (HEAVY | TABLES)


def test_what_a_syndrome_imports(installed: Venv) -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "from gdbhyp.cli.main import main; status = main(['esr', '0x93c58045'])\n"
        "import json; print('\\n' + json.dumps(sorted(set(sys.modules) - before))); sys.exit(status)"
    )
    done = subprocess.run(
        [str(installed.python), "-c", program], capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert rooms(loaded) <= ROOMS_OF_ESR
    assert not loaded & TABLES
    assert not any(name.startswith("pygments") for name in loaded)
    assert loaded & {"gdbhyp.arch.syndrome"}
