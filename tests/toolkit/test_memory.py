"""What there is of memory, and the refusal of what needs more."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from attriboard.toolkit import memory
from attriboard.toolkit.memory import free_memory, require_memory


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 GB free, and no container."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Free", (), {"available": 8 * 10**9}))
    monkeypatch.setattr(memory, "_container_memory", list)


@pytest.mark.parametrize("need", [None, {}, {"a": 8 * 10**9}, {"a": 4 * 10**9, "b": 4 * 10**9}])
def test_what_fits_or_is_not_counted_may_begin(machine: None, need: dict[str, int] | None) -> None:
    require_memory(need)


def test_what_does_not_fit_names_its_largest_parts_and_what_is_free(machine: None) -> None:
    need = {"small": 10**6, "kernel": 3 * 10**9, "factors": 2 * 10**9, "scores": 10**9, "Hessian": 48 * 10**9}
    rule = r"^needs 54\.0 GB \(Hessian 48\.0 GB, kernel 3\.0 GB, factors 2\.0 GB\); 8\.0 GB are free$"
    with pytest.raises(MemoryError, match=rule):
        require_memory(need)


def test_a_limit_leaves_what_is_not_resident_yet(machine: None) -> None:
    resident = psutil.Process().memory_info().rss
    assert free_memory(limit=resident + 10**9) == pytest.approx(10**9, abs=5 * 10**7)
    assert free_memory(limit=1) == 0


@pytest.mark.parametrize(("limit", "free"), [("4000", [4000 - 3000 + 500]), ("max", [])])
def test_a_container_leaves_its_limit_less_what_is_used_and_not_only_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: list[int]
) -> None:
    group = tmp_path / "sys/fs/cgroup/box"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("1:name=old:/elsewhere\n0::/box\n")
    (group / "memory.max").write_text(limit + "\n")
    (group / "memory.current").write_text("3000\n")
    (group / "memory.stat").write_text("anon 2500\ninactive_file 500\n")

    def below(*parts: Any) -> Path:
        return tmp_path.joinpath(*(str(part).lstrip("/") for part in parts))

    monkeypatch.setattr(memory, "Path", below)
    assert memory._container_memory() == free
