"""The audit page of a prepared folder: `collect` reads the folder, `page` writes one HTML file."""
