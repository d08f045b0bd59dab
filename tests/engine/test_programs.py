"""Compiled graphs are kept up to a limit; those that a call needs are kept in any case."""

from opensora.engine.programs import Programs


def test_the_least_recently_used_go_first() -> None:
    programs: Programs[str] = Programs(limit=10)
    for name in "abc":
        programs.new_call()
        programs.add(name, name.upper(), 4)
    assert programs.get("a") is None and programs.get("b") == "B" and programs.get("c") == "C"
    programs.new_call()
    assert programs.get("b") == "B"
    programs.add("d", "D", 4)
    assert programs.get("c") is None and programs.get("b") == "B"


def test_a_call_keeps_all_that_it_uses() -> None:
    programs: Programs[str] = Programs(limit=10)
    programs.add("small", "S", 1)
    programs.new_call()
    for name in "abc":
        programs.add(name, name.upper(), 100)
    assert programs.get("small") is None and len(programs) == 3
    programs.new_call()
    programs.add("d", "D", 2)
    assert len(programs) == 1
    programs.clear()
    assert len(programs) == 0
