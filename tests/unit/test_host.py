from prunecal.core import host
from prunecal.core.host import Memory

GB = 10**9


def test_memory_is_what_the_machine_has(tmp_path, monkeypatch):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       32000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n")
    monkeypatch.setattr(host, "MEMORY_INFO", info)
    monkeypatch.setattr(host, "OWN_GROUPS", tmp_path / "nowhere")
    assert host.main_memory() == Memory(20_000_000 * 1024, 32_000_000 * 1024)


def test_memory_is_what_a_container_or_job_leaves_and_cached_files_count_as_free(
    tmp_path, monkeypatch
):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       32000000 kB\nMemAvailable:   20000000 kB\n")
    for kind, names, line in (
        ("new", ("max", "current"), "0::/job/step\n"),
        ("old/memory", ("limit_in_bytes", "usage_in_bytes"), "4:memory,x:/job/step\n5:cpu:/\n"),
    ):
        root = tmp_path / kind
        (root / "job/step").mkdir(parents=True)
        for group, limit, used in (("job", 8 * GB, 5 * GB), ("job/step", "max", 5 * GB)):
            (root / group / f"memory.{names[0]}").write_text(f"{limit}\n")
            (root / group / f"memory.{names[1]}").write_text(f"{used}\n")
            statistics = f"anon 1\ninactive_file {2 * GB}\nactive_file {1 * GB}\n"
            (root / group / "memory.stat").write_text(statistics)
        groups = tmp_path / "groups"
        groups.write_text(line)
        monkeypatch.setattr(host, "MEMORY_INFO", info)
        monkeypatch.setattr(host, "OWN_GROUPS", groups)
        monkeypatch.setattr(host, "CGROUPS", tmp_path / kind.partition("/")[0])
        assert host.main_memory() == Memory(6 * GB, 8 * GB)


def test_this_machine_has_some_memory():
    memory = host.main_memory()
    assert 0 < memory.free <= memory.total
