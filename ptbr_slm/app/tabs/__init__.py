"""The page's tabs: each a function that fills the `gr.Tab` that is open."""
