"""Bad recipes: what is written, and what must be said about it."""

from dataclasses import dataclass

GOOD = """\
version: 1
name: digits-int8
model: {onnx: model.onnx}
shapes:
  image: {min: [1, 1, 8, 8], opt: [32, 1, 8, 8], max: [256, 1, 8, 8]}
precision:
  type: fp16
  quantize: int8
calibration: {data: calib.npz, method: entropy, samples: 256}
targets:
  - {name: rtx, backend: tensorrt_rtx, compute_capabilities: ["8.6", "8.9"]}
  - {name: cpu, backend: onnxruntime}
verify:
  data: test.npz
  tolerance: {sqnr_db: 20, top1_agreement: 0.99}
"""


@dataclass(frozen=True)
class Case:
    """One bad recipe.

    Attributes:
        name: also the golden file's name.
        text: the recipe, as text or bytes.
        code: of the problem looked for.
        at: its line:column, "" where it has none.
        message: part of the message.
        hint: part of the hint.
        count: how many problems there must be in all.
        overrides: `--set` texts.
    """

    name: str
    text: str | bytes
    code: str
    at: str
    message: str
    hint: str
    count: int = 1
    overrides: tuple[str, ...] = ()


def edited(old: str, new: str) -> str:
    """The good recipe with one thing changed."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def billion_laughs() -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(lines)


# One case a line: a table.
# ruff: noqa: E501
CASES = (
    # keys
    Case("unknown-key", edited("  quantize:", "  quantise:"), "TF0209", "8:3", "unknown key 'quantise' in precision", "did you mean 'quantize'?"),
    Case("unknown-key-top", GOOD + "bundel: {include_onnx: false}\n", "TF0209", "16:1", "unknown key 'bundel'", "did you mean 'bundle'?"),
    Case("unknown-key-elsewhere", GOOD + "timeout_s: 3\n", "TF0209", "16:1", "unknown key 'timeout_s'", "keys here are: version, name"),
    Case("key-of-other-section", edited("  quantize: int8", "  quantize: int8\n  samples: 3"), "TF0209", "9:3", "unknown key 'samples' in precision", "did you mean 'calibration.samples'?"),
    Case("unknown-key-in-list", edited("{name: cpu, backend", "{name: cpu, bakend"), "TF0209", "12:17", "unknown key 'bakend' in targets[1]", "did you mean 'backend'?"),
    Case("missing-key", edited("name: digits-int8\n", ""), "TF0210", "1:1", "'name' is missing", "add 'name'"),
    Case("missing-model-key", edited("{onnx: model.onnx}", "{}"), "TF0210", "3:1", "'onnx' is missing in model", "add 'onnx': ONNX file, relative to the recipe"),
    Case("missing-opt", edited("opt: [32, 1, 8, 8], ", ""), "TF0210", "5:3", "'opt' is missing in shapes.image", "between min and max"),
    Case("missing-in-list-item", edited("{name: cpu, backend: onnxruntime}", "{name: cpu}"), "TF0210", "12:6", "'backend' is missing in targets[1]", "add 'backend'"),
    Case("keep-rule-empty", edited("  quantize: int8", "  quantize: int8\n  keep: [{type: fp32}]"), "TF0210", "9:10", "needs 'op', 'name' or 'path'", "{op: Softmax}"),
    Case("duplicate-key", GOOD + "name: again\n", "TF0207", "16:1", "the key 'name' is given twice", "on line 2"),
    Case("duplicate-key-nested", edited("{data: calib.npz, ", "{data: calib.npz, data: x, "), "TF0207", "9:32", "the key 'data' is given twice", "on line 9"),
    Case("duplicate-target", edited("{name: cpu,", "{name: rtx,"), "TF0207", "12:12", "two targets have the name 'rtx'", "'rtx-2'"),
    # types
    Case("text-for-mapping", edited("{onnx: model.onnx}", "model.onnx"), "TF0211", "3:8", "model must be a mapping, not the text 'model.onnx'", "write {onnx: model.onnx}"),
    Case("mapping-for-list", edited("  - {name: rtx, backend: tensorrt_rtx, compute_capabilities: [\"8.6\", \"8.9\"]}\n  - {name: cpu, backend: onnxruntime}", "  name: cpu\n  backend: onnxruntime"), "TF0211", "10:1", "targets must be a list, not a mapping", "'- '"),
    Case("text-for-list", edited("  quantize: int8", "  quantize: int8\npasses: {drop: identity}"), "TF0211", "9:16", "passes.drop must be a list", "write [identity]"),
    Case("number-for-text", edited("name: digits-int8", "name: 5"), "TF0211", "2:7", "name must be text, not the number 5", 'put it in quotes: "5"'),
    Case("text-for-number", edited("samples: 256", 'samples: "256"'), "TF0211", "9:58", "calibration.samples must be a whole number, not the text '256'", "write 256, without quotes"),
    Case("fraction-for-whole", edited("samples: 256", "samples: 256.0"), "TF0211", "9:58", "must be a whole number", "write 256"),
    Case("yaml11-boolean", edited("{name: rtx,", "{name: rtx, tf32: on,"), "TF0211", "11:23", "tf32 must be true or false, not the text 'on'", "write true"),
    Case("number-for-boolean", GOOD + "bundle: {include_onnx: 1}\n", "TF0211", "16:24", "must be true or false, not the number 1", "write true"),
    Case("boolean-for-number", edited("sqnr_db: 20", "sqnr_db: true"), "TF0211", "15:24", "sqnr_db must be a number, not true", "signal-to-quantization-noise ratio"),
    Case("underscored-number", edited("samples: 256", "samples: 1_000"), "TF0211", "9:58", "must be a whole number, not the text '1_000'", "write 1000"),
    Case("empty-section", GOOD + "bundle:\n", "TF0211", "16:1", "bundle has no value", "include_onnx"),
    Case("fraction-in-shape", edited("max: [256, 1, 8, 8]", "max: [256, 1, 8, 8.5]"), "TF0211", "5:67", "max[3] must be a whole number", "largest shape"),
    Case("shapes-without-input", edited("  image: {min: [1, 1, 8, 8], opt: [32, 1, 8, 8], max: [256, 1, 8, 8]}", "  min: [1]\n  opt: [1]\n  max: [1]"), "TF0211", "5:3", "'min' stands where the name of an input should", "the input's own name"),
    # values
    Case("wrong-version", edited("version: 1", "version: 2"), "TF0212", "1:10", "version must be 1, not the number 2", "version 1 of the recipe format"),
    Case("version-as-text", edited("version: 1", 'version: "1"'), "TF0211", "1:10", "version must be a whole number", "write 1"),
    Case("bad-choice", edited("type: fp16", "type: FP16"), "TF0212", "7:9", "precision.type cannot be the text 'FP16'", "did you mean 'fp16'?"),
    Case("bad-choice-far", edited("method: entropy", "method: kullback"), "TF0212", "9:40", "calibration.method cannot be", "minmax, average, percentile, entropy, mse"),
    Case("passes-use", edited("  quantize: int8", "  quantize: int8\npasses: {use: defualt}"), "TF0212", "9:15", "passes.use cannot be the text 'defualt'", "did you mean 'default'?"),
    Case("name-with-slash", edited("name: digits-int8", "name: ../digits int8"), "TF0212", "2:7", "becomes a folder's name", "did you mean 'digits-int8'?"),
    Case("negative-timeout", edited("{name: cpu,", "{name: cpu, timeout_s: -1,"), "TF0212", "12:28", "must be more than 0, not -1", "the build is stopped after this"),
    Case("share-as-percent", edited("top1_agreement: 0.99", "top1_agreement: 99"), "TF0212", "15:44", "must be at most 1, not 99", "did you mean 0.99?"),
    Case("not-finite", edited("sqnr_db: 20", "sqnr_db: .nan"), "TF0212", "15:24", "must be a finite number, not .nan", "remove the key"),
    Case("octal", edited("samples: 256", "samples: 0256"), "TF0212", "9:58", "0256 has a leading zero", "write 256"),
    Case("negative-dimension", edited("min: [1, 1, 8, 8]", "min: [-1, 1, 8, 8]"), "TF0212", "5:17", "is -1 in dimension 0; a size is at least 0", "values: true"),
    Case("nine-dimensions", edited("min: [1, 1, 8, 8]", "min: [1, 1, 1, 1, 1, 1, 1, 8, 8]"), "TF0212", "5:16", "has 9 dimensions; TensorRT's tensors have at most 8", "values: true", 2),
    Case("values-as-text", edited("max: [256, 1, 8, 8]}", "max: [256, 1, 8, 8], values: yes}"), "TF0211", "5:79", "values must be true or false", "write true"),
    Case("no-targets", edited("  - {name: rtx, backend: tensorrt_rtx, compute_capabilities: [\"8.6\", \"8.9\"]}\n  - {name: cpu, backend: onnxruntime}", "  []"), "TF0212", "11:3", "targets needs at least one entry", "add an entry"),
    Case("capability-unquoted", edited('["8.6", "8.9"]', '["8.6", 12.0]'), "TF0211", "11:70", "must be text, not the number 12.0", 'put it in quotes: "12.0"'),
    Case("capability-sm", edited('["8.6", "8.9"]', '["8.6", sm_89]'), "TF0212", "11:70", "is no compute capability", 'did you mean "8.9"?'),
    Case("capability-twice", edited('["8.6", "8.9"]', '["8.6", "8.6"]'), "TF0207", "11:70", "compute capability 8.6 is given twice", "remove one"),
    Case("cache-with-folder", edited("samples: 256", "samples: 256, cache: ../x.json"), "TF0212", "9:70", "must be a file name that ends in .json", "cache.json"),
    Case("empty-path", edited("data: test.npz", 'data: ""'), "TF0212", "14:9", "verify.data must not be empty", "relative to the recipe"),
    # laws
    Case("opt-above-max", edited("opt: [32, 1, 8, 8], max: [256", "opt: [64, 1, 8, 8], max: [32"), "TF0203", "5:30", "opt is outside min..max for input 'image' in dimension 0: 64 not in 1..32", "did you mean max: [64, 1, 8, 8]?"),
    Case("opt-below-min", edited("min: [1, 1", "min: [40, 1"), "TF0203", "5:31", "32 not in 40..256", "did you mean min: [32, 1, 8, 8]?"),
    Case("min-above-max", edited("min: [1, 1", "min: [300, 1"), "TF0203", "5:11", "min is above max for input 'image' in dimension 0: 300 > 256", "did you mean min: [256, 1, 8, 8], max: [300, 1, 8, 8]?"),
    Case("ranks-differ", edited("opt: [32, 1, 8, 8]", "opt: [32, 1, 8]"), "TF0203", "5:30", "differ in rank: 4, 3 and 4", "one number per dimension"),
    Case("second-profile", edited("  image: {min: [1, 1, 8, 8], opt: [32, 1, 8, 8], max: [256, 1, 8, 8]}", "  - image: {min: [1], opt: [1], max: [1]}\n  - image: {min: [1], opt: [9], max: [4]}"), "TF0203", "6:23", "9 not in 1..4", "did you mean max: [9]?"),
    Case("values-crossed", edited("max: [256, 1, 8, 8]}", "max: [256, 1, 8, 8]}\n  k: {min: [-1, 4], opt: [-1, 9], max: [-1, 8], values: true}").replace("calibration: {data: calib.npz, method: entropy, samples: 256}\n", "").replace("  quantize: int8\n", "").replace("  data: test.npz\n", ""), "TF0203", "6:21", "9 not in 4..8", "did you mean max: [-1, 9]?"),
    Case("quantize-without-calibration", edited("calibration: {data: calib.npz, method: entropy, samples: 256}\n", ""), "TF0213", "8:3", "there is no calibration", "calibration: {data: calib.npz}"),
    Case("attest-without-quantize", edited("  quantize: int8", "  quantize: none") + "  attest: {min_quantized_macs: 0.8}\n", "TF0213", "16:12", "nothing is quantized", "precision.quantize"),
    Case("accuracy-without-data", edited("  data: test.npz\n  tolerance: {sqnr_db: 20,", "  tolerance: {accuracy_drop: 0.01,"), "TF0213", "14:15", "accuracy_drop needs labels", "data: test.npz"),
    Case("samples-without-data", edited("  data: test.npz\n", "  samples: 5\n"), "TF0213", "14:3", "verify has no data", "remove samples"),
    Case("capabilities-for-onnxruntime", edited("{name: cpu, backend: onnxruntime}", '{name: cpu, backend: onnxruntime, compute_capabilities: ["8.6"]}'), "TF0213", "12:39", "not for 'onnxruntime'", "builds no engine"),
    Case("workspace-for-onnxruntime", edited("{name: cpu,", "{name: cpu, workspace_mib: 64,"), "TF0213", "12:17", "workspace_mib is an option of the TensorRT builders", "remove it"),
    Case("memory-limit-for-onnxruntime", edited("{name: cpu,", "{name: cpu, memory_limit_mib: 64,"), "TF0213", "12:17", "memory_limit_mib is an option of the TensorRT builders", "remove it"),
    Case("memory-limit-of-nothing", edited("{name: rtx,", "{name: rtx, memory_limit_mib: 0,"), "TF0212", "11:35", "must be at least 1, not 0", "stopped once it holds more memory"),
    Case("entropy-for-fp8", edited("quantize: int8", "quantize: fp8").replace('["8.6", "8.9"]', '["8.9"]'), "TF0213", "9:32", "entropy is made for the equal steps of INT8", "set method: mse or minmax"),
    Case("fp8-on-ampere", edited("quantize: int8", "quantize: fp8").replace("method: entropy", "method: minmax"), "TF0213", "11:63", "GPUs of compute capability 8.6 have no FP8", "8.9 or later"),
    # files
    Case("no-model-file", edited("model.onnx", "modle.onnx"), "TF0214", "3:15", "model.onnx: 'modle.onnx' does not exist", "did you mean 'model.onnx'?"),
    Case("no-data-file", edited("data: test.npz", "data: tset.npz"), "TF0214", "14:9", "verify.data: 'tset.npz' does not exist", "did you mean 'test.npz'?"),
    Case("no-data-folder", edited("data: calib.npz", "data: data/calib.npz"), "TF0214", "9:21", "does not exist", "there is no folder 'data'"),
    Case("model-is-a-folder", edited("model.onnx", "folder.onnx"), "TF0214", "3:15", "'folder.onnx' is a folder", "the file itself"),
    Case("path-too-long", edited("model.onnx", "m" * 5000 + ".onnx"), "TF0214", "3:15", "cannot be read: File name too long", "did you mean 'model.onnx'?"),
    # YAML
    Case("tab", edited("  type: fp16", "\ttype: fp16"), "TF0204", "7:1", "a tab stands where only spaces may", "indented with spaces"),
    Case("open-list", edited("min: [1, 1, 8, 8]", "min: [1, 1, 8, 8"), "TF0204", "5:16", "this list is not closed, or a comma is missing", "write [a, b, c]"),
    Case("open-mapping", edited("{sqnr_db: 20, top1_agreement: 0.99}", "{sqnr_db: 20, top1_agreement: 0.99"), "TF0204", "15:14", "this mapping is not closed", "write {a: 1, b: 2}"),
    Case("open-quote", edited("name: digits-int8", 'name: "digits-int8'), "TF0204", "11:64", "this text does not belong here", "is a quote further up not closed"),
    Case("no-space-after-colon", edited("  type: fp16", "  type:fp16"), "TF0204", "8:11", "there is a ':' where no key may stand", "the line above"),
    Case("wrong-indentation", edited("  data: test.npz", "    data: test.npz"), "TF0204", "15:3", "does not fit in with the lines above", "same column"),
    Case("two-colons", edited("name: digits-int8", "name: digits: int8"), "TF0204", "2:13", "there is a ':' where no key may stand", "needs quotes"),
    Case("reserved-character", edited("name: digits-int8", "name: @digits"), "TF0204", "2:7", "a character that YAML keeps for itself", "in quotes"),
    Case("bad-escape", edited("model.onnx", '"C:\\models\\x.onnx"'), "TF0204", "3:19", "a backslash in double quotes", "single quotes"),
    Case("huge-escape", edited("model.onnx", '"\\UFFFFFFFF"'), "TF0204", "", "not well-formed YAML", "quotes"),
    Case("unknown-alias", edited("data: test.npz", "data: *tests"), "TF0204", "14:9", "the alias *tests has no anchor", "&tests"),
    Case("control-character", edited("digits-int8", "digits\x07int8"), "TF0202", "2:13", "control character (U+0007)", "remove it"),
    Case("two-documents", GOOD + "---\nversion: 1\n", "TF0205", "16:1", "more than one YAML document", "file of its own"),
    Case("tag", edited("samples: 256", "samples: !!python/name:os.system 256"), "TF0205", "9:58", "the YAML tag", "remove the tag"),
    Case("merge-key", edited("{sqnr_db: 20,", "{<<: {max_abs: 1}, sqnr_db: 20,"), "TF0205", "15:15", "merge keys ('<<') are not used", "write the keys out"),
    Case("yaml-1.1", "%YAML 1.1\n---\n" + GOOD, "TF0205", "2:1", "this file says 1.1", "remove the %YAML line"),
    Case("complex-key", GOOD + "? [a, b]\n: 1\n", "TF0205", "16:3", "a key is a list or a mapping", "keys are text"),
    Case("alias-in-itself", GOOD + "bundle: &b {include_onnx: *b}\n", "TF0205", "16:27", "the alias *b stands within its own anchor", "quote the text"),
    Case("billion-laughs", billion_laughs(), "TF0206", "5:10", "more than 20000 values", "right file"),
    Case("too-deep", "a: " + "[" * 60 + "]" * 60, "TF0206", "1:35", "nested more than 32 deep", "six levels"),
    Case("many-values", "a: [" + "1," * 30_000 + "1]", "TF0206", "1:39999", "more than 20000 values", "right file"),
    # not a recipe at all
    Case("empty", "", "TF0208", "", "the recipe is empty", "version: 1"),
    Case("comment-only", "# nothing yet\n", "TF0208", "", "the recipe is empty", "version: 1"),
    Case("a-list", "- version: 1\n", "TF0208", "1:1", "a recipe is a mapping; this is a list", "version: 1"),
    Case("plain-text", "hello world\n", "TF0208", "1:1", "this is the text 'hello world'", "version: 1"),
    Case("binary", b"\x08\x0a\x12\x07pytorch\x00\x01", "TF0202", "", "a binary file", "model.onnx"),
    Case("not-utf8", edited("digits-int8", "dígits").encode("latin-1"), "TF0202", "2:8", "byte 0xed is not UTF-8", "save the recipe as UTF-8"),
    Case("utf-16", GOOD.encode("utf-16"), "TF0202", "", "UTF-16", "save it as UTF-8"),
    Case("too-large", GOOD + "#" * 1_000_000, "TF0201", "", "is larger than 1 MB", "right file"),
    # performance
    Case("limit-unknown-figure", GOOD + 'performance: {limits: ["p99_ms<=5", "p98_ms<=5"]}\n', "TF0212", "16:37", "'p98_ms<=5' is no limit", "samples_per_second"),
    Case("limit-no-number", GOOD + 'performance: {limits: ["p99_ms<=1e"]}\n', "TF0212", "16:24", "'1e' is no number", "write p99_ms<=5"),
    Case("server-without-rate", GOOD + "performance: {scenario: server, batch: 4}\n", "TF0210", "16:1", "needs a rate", "rate: 100"),
    Case("rate-without-server", GOOD + "performance: {rate: 100}\n", "TF0213", "16:15", "not of single-stream", "scenario: server"),
    Case("streams-one-at-a-time", GOOD + "performance: {streams: 4}\n", "TF0213", "16:15", "one query at a time", "scenario: offline"),
    Case("scenario-far", GOOD + "performance: {scenario: single_stream}\n", "TF0212", "16:25", "performance.scenario", "single-stream"),
    # --set
    Case("set-unknown-path", GOOD, "TF0209", "", "unknown key 'tolerence' in verify", "did you mean 'tolerance'?", 1, ("verify.tolerence.sqnr_db=3",)),
    Case("set-wrong-type", GOOD, "TF0211", "", "calibration.samples must be a whole number", "samples", 1, ("calibration.samples=many",)),
    Case("set-no-value", GOOD, "TF0215", "", "--set verify.data has no value", "verify.data=null", 1, ("verify.data=",)),
    Case("set-no-equals", GOOD, "TF0215", "", "is not of the form a.b=c", "key.key=value", 1, ("verify.data",)),
    Case("set-list-position", GOOD, "TF0215", "", "names '5' in 'targets', which is a list of 2", "from 0 to 1", 1, ("targets.5.tf32=true",)),
    Case("set-target-name", GOOD, "TF0215", "", "names 'cpuu' in 'targets'", "did you mean targets.cpu?", 1, ("targets.cpuu.tf32=true",)),
    Case("set-below-value", GOOD, "TF0215", "", "goes below 'name', which is a single value", "--set name=...", 1, ("name.first=x",)),
    Case("set-bad-yaml", GOOD, "TF0204", "", "a value is missing here", "write a value", 1, ("precision.type=[",)),
    Case("set-breaks-law", GOOD, "TF0203", "", "opt is outside min..max", "did you mean max: [512, 1, 8, 8]?", 1, ("shapes.image.opt=[512,1,8,8]",)),
)  # fmt: skip
