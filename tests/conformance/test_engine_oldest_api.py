"""What the engine room uses exists in the oldest release of TensorRT that trtforge takes, too."""

from pathlib import Path

from simulator.bindings import OLDEST
from simulator.specification import specification
from test_engine_api_contract import USED_API

REPOSITORY = Path(__file__).parents[2]
# What came later is used where the library has it.
LATER_CLASSES = {"EngineStat", "IAttention", "IAttentionInputLayer"}
LATER = {
    ("LayerType", "ATTENTION_INPUT"),
    ("ICudaEngine", "get_aliased_input_tensor"),
    ("ICudaEngine", "get_engine_stat"),
}


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
    assert missing == LATER | {
        (kind, member) for kind in LATER_CLASSES for member in USED_API[kind]
    }
    module = {*classes, *facts["functions"], *facts["constants"], "__version__"}
    used = {name for name, flavours in USED_API[""].items() if "10" in flavours}
    assert used - module == {"EngineStat", "IAttentionInputLayer"}


def test_the_oldest_release_is_the_one_that_the_package_asks_for() -> None:
    wanted = (REPOSITORY / "pyproject.toml").read_text()
    assert f'tensorrt = ["tensorrt>={".".join(OLDEST.split(".")[:2])}"]' in wanted
