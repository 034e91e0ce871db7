import threading

import pytest

from fedvtc.errors import DiskError
from fedvtc.learning.metrics import INCIDENTS
from fedvtc.runtime.incidents import Incidents


def test_an_incident_is_printed_at_once_and_counted_for_the_record():
    printed = []
    incidents = Incidents(printed.append)
    incidents.add("steps_retried", "client 3: again")
    assert printed == ["client 3: again"]
    incidents.add("clients_skipped", "client 3: left out")
    incidents.add("steps_retried", "client 5: again")
    assert printed == ["client 3: again", "client 3: left out", "client 5: again"]
    assert incidents.take() == {
        "incidents/clients_skipped": 1,
        "incidents/steps_retried": 2,
        "incidents": ["client 3: again", "client 3: left out", "client 5: again"],
    }


def test_a_record_holds_the_incidents_since_the_last_record_and_totals_hold_all():
    incidents = Incidents(lambda text: None)
    assert (incidents.take(), incidents.totals) == ({}, {})
    incidents.add("disk_errors", "a")
    assert incidents.take() == {"incidents/disk_errors": 1, "incidents": ["a"]}
    assert incidents.take() == {}
    incidents.add("disk_errors", "b")
    incidents.add("processes_lost", "c")
    assert incidents.take() == {"incidents/disk_errors": 1, "incidents/processes_lost": 1, "incidents": ["b", "c"]}
    assert incidents.totals == {"disk_errors": 2, "processes_lost": 1}
    incidents.totals["disk_errors"] = 9
    assert incidents.totals["disk_errors"] == 2


def test_an_unknown_kind_of_incident_is_a_bug():
    incidents = Incidents(lambda text: None)
    with pytest.raises(AssertionError):
        incidents.add("mishaps", "a")
    assert incidents.totals == {}
    assert all(text and name == name.lower() for name, text in INCIDENTS.items())


def test_the_printing_function_may_read_totals_and_may_raise():
    seen = []

    def tell(text):
        seen.append(incidents.totals)
        raise DiskError(text)

    incidents = Incidents(tell)
    with pytest.raises(DiskError):
        incidents.add("disk_errors", "no room")
    assert seen == [{"disk_errors": 1}]
    assert incidents.take()["incidents"] == ["no room"]


def test_no_incident_is_lost_or_counted_twice_between_threads():
    printed, records = [], []
    incidents = Incidents(printed.append)
    done = threading.Event()

    def add(kind):
        for number in range(300):
            incidents.add(kind, f"{kind} {number}")

    def take():
        while not done.is_set():
            records.append(incidents.take())

    adding = [threading.Thread(target=add, args=(kind,)) for kind in list(INCIDENTS)[:4]]
    taking = threading.Thread(target=take)
    for thread in (taking, *adding):
        thread.start()
    for thread in adding:
        thread.join(timeout=60)
    done.set()
    taking.join(timeout=60)
    records.append(incidents.take())
    for kind in list(INCIDENTS)[:4]:
        texts = [f"{kind} {number}" for number in range(300)]
        assert [text for record in records for text in record.get("incidents", []) if text.startswith(kind)] == texts
        assert sum(record.get(f"incidents/{kind}", 0) for record in records) == 300
        assert incidents.totals[kind] == 300
    assert len(printed) == 1200
