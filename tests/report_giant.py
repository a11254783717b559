"""Reports of large and of hostile models, in every part that grows with them."""

from dataclasses import replace

from report_samples import OPTIMIZE, SAMPLE, layer, parity, point

LONG = "x" * 300
RIGHT_TO_LEFT = "‮שלום‬ العربية \u202e reversed"
SCRIPT = "</style></title><script>document.title='owned'</script><img src=x onerror=alert(1)>"

_KINDS = ("fp16", "int8", "fp32", "bf16", "fp8", "int64", "no such type")


def giant(nodes, name):
    """Return a report of so many nodes, named by a function of their number."""
    names = [name(number) for number in range(nodes)]
    per_node = [
        {"name": one, "op": "MatMul", "type": _KINDS[i % len(_KINDS)], "macs": 1000 * i}
        for i, one in enumerate(names)
    ]
    layers = [layer(one, 80 - 60 * i / nodes) for i, one in enumerate(names)]
    jump = {"tensor": names[nodes // 3], "node": names[nodes // 3], "from_db": 60, "to_db": 40}
    decisions = [
        {
            "node": one,
            "op": "Conv",
            "tensor": one,
            "action": "kept",
            "reason": f"as '{one}' {i}" * 9,
        }
        for i, one in enumerate(names)
    ]
    ranges = {
        one: {"min": -i, "max": i, "amax": i * 0.9, "spark": {"limit": 2.0 * i + 1, "counts": [9]}}
        for i, one in enumerate(names)
    }
    notes = [{"kind": "refused", "node": one, "reason": "why " * 20} for one in names]
    output = parity()["outputs"]["logits"]
    spec = {"dtype": "float32", "dims": [1]}
    return replace(
        SAMPLE,
        name=names[0],
        attested=SAMPLE.attested | {"per_node": per_node},
        layers={"samples": 4, "layers": layers, "first_jump": jump},
        decisions=decisions,
        calibration=SAMPLE.calibration | {"ranges": ranges, "warnings": names},
        optimize=OPTIMIZE | {"passes": [{"name": "pass", "rewrites": 3, "notes": notes}]},
        graph_parity=parity() | {"outputs": dict.fromkeys(names[:300], output)},
        contract={"inputs": [spec | {"name": one} for one in names], "outputs": []},
        profiles=[{one: {"min": [1], "opt": [1], "max": [1]} for one in names}],
        budget=SAMPLE.budget | {"points": [point(i / nodes, i, {"int8": i}) for i in range(nodes)]},
    )
