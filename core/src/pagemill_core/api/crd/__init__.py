"""Making the CustomResourceDefinitions and their reference page out of the models. Renders text; writes no file."""
