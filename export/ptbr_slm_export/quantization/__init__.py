"""From float matrices to blocks of codes, by more than one method."""
