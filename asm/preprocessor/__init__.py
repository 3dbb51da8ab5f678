"""From source text to lines without directives of the preprocessor."""
