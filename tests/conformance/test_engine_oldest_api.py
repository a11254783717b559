"""What the engine room uses exists in the oldest release of TensorRT that trtforge takes, too."""

from pathlib import Path

from simulator.bindings import OLDEST
from simulator.specification import specification
from test_engine_api_contract import USED_API

REPOSITORY = Path(__file__).parents[2]
# Attention came with 10.14; what is done for it is done where the library has it.
SINCE_10_14 = {"IAttention", "IAttentionInputLayer"}


def test_the_oldest_release_has_what_is_used() -> None:
    facts = specification(OLDEST)
    classes = facts["classes"]

    def names(kind: str) -> set[str]:
        own = classes.get(kind, {})
        sides = ("methods", "static", "properties", "aliases", "members")
        found = {name for side in sides for name in own.get(side, ())}
        return found.union(*(names(base) for base in own.get("bases", ())))

    missing = {
        (kind, member)
        for kind, members in USED_API.items()
        for member, flavours in members.items()
        if kind and "10" in flavours and member not in names(kind)
    }
    expected = {(kind, member) for kind in SINCE_10_14 for member in USED_API[kind]}
    assert missing == expected | {("LayerType", "ATTENTION_INPUT")}
    module = {*classes, *facts["functions"], *facts["constants"], "__version__"}
    used = {name for name, flavours in USED_API[""].items() if "10" in flavours}
    assert used - module == {"IAttentionInputLayer"}


def test_the_oldest_release_is_the_one_that_the_package_asks_for() -> None:
    wanted = (REPOSITORY / "pyproject.toml").read_text()
    assert f'tensorrt = ["tensorrt>={".".join(OLDEST.split(".")[:2])}"]' in wanted
