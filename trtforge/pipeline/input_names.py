"""Profiles that give ranges in the order of the model's inputs, brought to their names."""

from trtforge.recipe.load import LoadedRecipe
from trtforge.recipe.schema import ByPosition


def with_input_names(loaded: LoadedRecipe) -> LoadedRecipe:
    """Return a recipe with its profiles by name; the model is read only where some are not.

    Raises:
        RecipeError: TF0231, a profile by position has more ranges than the model has inputs.
        GraphError: the model is refused.
    """
    if not any(isinstance(profile, ByPosition) for profile in loaded.recipe.shapes):
        return loaded
    from trtforge.graph.model import Model

    contract = Model.load(loaded.resolve(loaded.recipe.model.onnx)).contract
    return loaded.with_inputs([spec.name for spec in contract.inputs])
