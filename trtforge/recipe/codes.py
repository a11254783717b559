"""The error codes of this room: one table, printed in the documentation."""

UNREADABLE = "TF0201"
NOT_TEXT = "TF0202"
SHAPES = "TF0203"
SYNTAX = "TF0204"
FEATURE = "TF0205"
TOO_BIG = "TF0206"
DUPLICATE = "TF0207"
NOT_A_RECIPE = "TF0208"
UNKNOWN_KEY = "TF0209"
MISSING_KEY = "TF0210"
WRONG_TYPE = "TF0211"
WRONG_VALUE = "TF0212"
CONTRADICTION = "TF0213"
NO_FILE = "TF0214"
BAD_OVERRIDE = "TF0215"
NOT_EDITABLE = "TF0216"
CHANGED = "TF0217"

CODES: dict[str, str] = {
    UNREADABLE: "the recipe file is missing, a folder, not readable, or larger than 1 MB",
    NOT_TEXT: "the recipe file is not UTF-8 text",
    SHAPES: "the shapes of an optimization profile are impossible",
    SYNTAX: "the file is not well-formed YAML",
    FEATURE: "a YAML feature that recipes do not use: tags, merge keys, several documents",
    TOO_BIG: "too many or too deeply nested values, counted with aliases expanded",
    DUPLICATE: "a key, a target name or another name that must be unique is given twice",
    NOT_A_RECIPE: "the file is empty, or not a mapping",
    UNKNOWN_KEY: "a key that the schema does not have",
    MISSING_KEY: "a key that must be given is missing",
    WRONG_TYPE: "a value has the wrong type",
    WRONG_VALUE: "a value is out of range, not one of the choices, or malformed",
    CONTRADICTION: "two parts of the recipe contradict each other",
    NO_FILE: "a file that the recipe names does not exist or cannot be read",
    BAD_OVERRIDE: "a --set is malformed, or its path does not exist",
    NOT_EDITABLE: "keep rules cannot be added to a recipe that is written in this form",
    CHANGED: "the recipe was changed while it was to be extended",
    "TF0231": "a profile does not fit the model's inputs",
    "TF0232": "the model has no output of this name",
    "TF0233": "there is no pass of this name",
}
