"""What `make test` does about missing services, on a made-up machine: its own PATH, package manager and policy."""

import stat
from pathlib import Path

import pytest

from deploy import services
from deploy.services import Service
from tests.missing import missing

GADGET = Service("gadget", ("gadget",), ("gadget-server",), "tests of gadgets", daemons=("gadget",))


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Machine:
    """Debian, as root. Its apt-get installs the gadget and writes down the policy that holds meanwhile."""

    def __init__(self, root: Path) -> None:
        self.programs = root / "bin"
        self.programs.mkdir()
        self.policy, self.calls = root / "policy-rc.d", root / "calls"
        script(self.programs / "update-rc.d", f'echo "update-rc.d $*" >>{self.calls}')

    def installs(self, outcome: str = "exit 0") -> None:
        gadget = self.programs / "gadget"
        made = f"printf '#!/bin/sh\\necho gadget v1.2.3\\n' >{gadget}; /bin/chmod +x {gadget}"
        log = f'echo "apt-get $*" >>{self.calls}; {self.policy} >/dev/null; echo "policy $?" >>{self.calls}'
        script(self.programs / "apt-get", f'{log}; case "$1" in install) {outcome}; {made};; esac')


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(services, "POLICY", made.policy)
    monkeypatch.setattr(services, "SERVICES", {"test": (GADGET,)})
    return made


def test_what_is_missing_is_installed_and_its_daemon_never_starts(machine: Machine) -> None:
    machine.installs(outcome=":")
    services.install((GADGET,))
    install = "apt-get install -y -qq --no-install-recommends gadget-server"
    expected = ["apt-get update -qq", "policy 101", install, "policy 101", "update-rc.d gadget disable"]
    assert machine.calls.read_text().splitlines() == expected
    assert not machine.policy.exists()
    assert f"gadget             1.2.3      {machine.programs}/gadget" in services.report("test")


@pytest.mark.parametrize(("update_rc_d", "shown"), [(None, "no such program"), ("echo broken; exit 1", "broken")])
def test_a_service_that_cannot_be_disabled_is_shown_and_tests_run(
    machine: Machine, capsys: pytest.CaptureFixture[str], update_rc_d: str | None, shown: str
) -> None:
    machine.installs(outcome=":")
    (machine.programs / "update-rc.d").unlink()
    if update_rc_d is not None:
        script(machine.programs / "update-rc.d", update_rc_d)
    services.install((GADGET,))
    assert f"update-rc.d gadget disable: {shown}" in capsys.readouterr().err
    assert services.is_found(GADGET)


def test_what_is_there_is_left_alone(machine: Machine) -> None:
    script(machine.programs / "gadget", "echo gadget 7")
    script(machine.programs / "apt-get", "exit 1")
    services.install((GADGET,))
    assert not machine.calls.exists()


def test_a_policy_that_the_machine_has_is_kept(machine: Machine) -> None:
    script(machine.policy, "exit 101")
    machine.installs(outcome=":")
    services.install((GADGET,))
    assert machine.policy.exists()


def test_a_failed_installation_is_shown_and_the_report_says_what_skips(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.installs(outcome="echo no such package >&2; exit 100")
    services.install((GADGET,))
    assert "no such package" in capsys.readouterr().err
    assert not machine.policy.exists()
    monkeypatch.delenv("CI", raising=False)
    assert "missing    these skip: tests of gadgets; apt-get install gadget-server" in services.report("test")
    monkeypatch.setenv("CI", "true")
    assert "missing    these fail (CI): tests of gadgets" in services.report("test")


def test_nobody_but_root_installs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    machine.installs()
    services.install((GADGET,))
    assert not machine.calls.exists()


def test_a_test_of_a_missing_service_skips_at_home_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="gadget is missing"):
        missing("gadget")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="gadget is missing"):
        missing("gadget")


@pytest.mark.parametrize("target", services.SERVICES)
def test_every_row_says_what_it_is_for_and_how_to_get_it(target: str) -> None:
    for row in services.SERVICES[target]:
        assert row.programs
        assert row.needed_by
        assert row.remedy
