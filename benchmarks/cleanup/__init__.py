"""Parts of `graph_cleanup.py`: contenders, measuring, examination, records, tables, targets."""
