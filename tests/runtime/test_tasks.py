from fedvtc.runtime.host import ClientHost
from fedvtc.runtime.tasks import changes_client, is_changing


def test_the_tasks_that_change_a_client_are_marked():
    methods = {name: method for name, method in vars(ClientHost).items() if not name.startswith("_")}
    changing = {name for name, method in methods.items() if is_changing(method)}
    assert changing == {"run_round", "closing_upload", "finish"}


def test_a_mark_leaves_the_function_itself():
    def task(host, client, broadcast):
        return client

    assert not is_changing(task)
    assert changes_client(task) is task
    assert is_changing(task)
