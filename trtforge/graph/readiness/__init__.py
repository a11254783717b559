"""What TensorRT's parser does not take, said another way; and what remains, said before a build."""
