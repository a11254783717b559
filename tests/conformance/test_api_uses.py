"""No use of NVIDIA's API escapes the contract test, however it is written."""

import pytest
from api_uses import uses
from test_engine_api_contract import TABLE, VARIABLES

OVERLOOKED = {
    "member": "def f(engine: Any): engine.make_coffee()",
    "own attribute": "class A:\n    def f(self): self._context.make_coffee()",
    "result of a call": "def f(trt: Any): trt.Builder(None).make_coffee()",
    "variable": "def f(trt: Any):\n    it = trt.Runtime(None)\n    it.make_coffee()",
    "variable of a loop": "def f(engine: Any):\n    for it in engine.parts: it.make_coffee()",
    "kept in self": "class A:\n    def f(self, trt: Any): self.it = trt.Runtime(None)\n"
    "    def g(self): self.it.make_coffee()",
    "any type": "def f(it: Any): it.make_coffee()",
    "nested": "def f(trt: Any):\n    def g(): trt.Coffee",
    "enumeration": "def f(trt: Any): trt.DataType.COFFEE",
    "by text": "def f(engine: Any): getattr(engine, 'make_coffee', None)",
    "asked for": "def f(trt: Any): hasattr(trt.Runtime, 'make_coffee')",
    "by a table": "def f(config: Any, name: str): setattr(config, name, 1)",
    "compared": "def f(engine: Any): return engine.get_tensor_mode('x').name == 'COFFEE'",
    "derived": "class A(trt.Coffee): ...",
}


@pytest.mark.parametrize("how", OVERLOOKED)
def test_a_use_that_is_in_no_table_is_found(how):
    found = uses(OVERLOOKED[how], VARIABLES)
    members = {member for _, member in TABLE}
    assert found.members - TABLE or found.unknown or found.looked_up or found.compared - members
