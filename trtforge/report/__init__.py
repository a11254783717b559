"""What a person or a pipeline reads about a build: HTML, JUnit, tables."""
