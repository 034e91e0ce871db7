"""Short names that installed packages register as entry points, for methods, backbones and data sets."""

import pytest

from fedvtc.commands.main import main
from fedvtc.config import load, registered
from fedvtc.errors import ConfigError
from fedvtc.learning.methods import config_classes

METHOD = """
from fedvtc.config.schema import MethodConfig
from fedvtc.config.section import section
from fedvtc.learning.exchange.messages import Broadcast, Upload
from fedvtc.learning.methods import Method

@section
class PlugConfig(MethodConfig):
    '''Keys of the plug.'''

    plugged: float = 0.5
    '''Weight of the plug.'''

class Plug(Method[PlugConfig]):
    config_class = PlugConfig

    def client_round(self, client, broadcast):
        return Upload(0, 1, 2)

    def server_round(self, state, uploads):
        return state, Broadcast()
"""
KEYS = {
    "methods": "method.name={}",
    "backbones": "population.backbones=[{{name: {}, share: 1}}]",
    "data": "data.name={}",
}
BUILTIN = {"methods": "local", "backbones": "resnet8", "data": "digits"}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with entry points, as lines of entry_points.txt."""
    (tmp_path / "plug_methods.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, text):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(text)
        registered._entries.cache_clear()

    yield make
    registered._entries.cache_clear()


def loaded(*overrides):
    return load([], overrides, methods=config_classes())


def test_an_installed_package_gives_short_names(install, capsys):
    lines = [f"[fedvtc.{kind}]\nplug_{kind} = plug_{kind}:Plug" for kind in KEYS]
    install("plug", "\n".join(lines))

    config = loaded(*(KEYS[kind].format(f"plug_{kind}") for kind in KEYS), "method.plugged=2")

    assert (config.method.name, config.method.plugged, config.data.name) == ("plug_methods", 2.0, "plug_data")
    assert config.population.backbones[0].name == "plug_backbones"
    for kind in KEYS:
        assert main(["list", kind]) == 0
        (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"plug_{kind} ")]
        assert row.split(maxsplit=1)[1].strip() == f"plug_{kind}:Plug of plug 1.0"


def test_help_shows_the_keys_of_methods_outside_of_the_package(install, capsys):
    install("plug", "[fedvtc.methods]\nplug_methods = plug_methods:Plug\nbroken = absent_module:Plug\n")
    for words, title in (
        (["run", "--help"], "method.name=plug_methods:"),
        (["plan", "method.name=plug_methods:Plug", "--help"], "method.name=plug_methods:Plug:"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert f"{title}\n  method.plugged=0.5  (float)\n      Weight of the plug.\n" in printed
        assert "method.name=broken: absent_module cannot be imported" in printed


@pytest.mark.parametrize("kind", KEYS)
def test_a_name_that_is_not_clear_is_refused(install, golden, keys_of, capsys, kind):
    install(
        "plug", f"[fedvtc.{kind}]\n{BUILTIN[kind]} = plug_methods:Plug\ntwice = plug_methods:Plug\nodd = plug_methods"
    )
    install("jack", f"[fedvtc.{kind}]\ntwice = jack:Plug\n")
    refusals = []
    for name in (BUILTIN[kind], "twice", "odd", "twicee"):
        with pytest.raises(ConfigError) as refused:
            loaded(KEYS[kind].format(name))
        (key,) = keys_of(refused.value)
        assert key == KEYS[kind].partition("=")[0].replace("backbones", "backbones[0].name")
        refusals.append(str(refused.value))
    assert main(["list", kind]) == 0
    refusals += [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith(BUILTIN[kind] + " ")]
    golden("\n".join(refusals))
