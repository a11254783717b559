"""What `precision.emulate` is made of: element types by scope, exact operators, the rewriting."""
