import subprocess

from fedvtc.storage import commits as module
from fedvtc.storage.commits import commits


def test_an_attempt_names_the_commit_of_the_working_folder(tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("clean", "changed", "plain")}
    # The folder of the tests may be inside of a repository.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "run.py").write_text("1\n")
        if name != "plain":
            author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
            for words in (["init", "-q"], ["add", "run.py"], [*author, "commit", "-qm", "One"]):
                subprocess.run(["git", *words], cwd=folder, check=True)
    (folders["changed"] / "run.py").write_text("2\n")
    (folders["clean"] / "notes.txt").write_text("untracked\n")
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folders["clean"], text=True).strip()
    found = {}
    for name, folder in folders.items():
        monkeypatch.chdir(folder)
        found[name] = commits().get("project")
    assert found == {"clean": head, "changed": module._commit(folders["changed"]), "plain": None}
    assert found["changed"].endswith("-dirty")
    assert len(found["changed"]) == len(head) + len("-dirty")
