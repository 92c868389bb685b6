"""What a Kaggle notebook needs: its metadata and the notebook of examples/kaggle."""
