"""The page: tabs over one model. Gradio is imported only when the page is built.

Read in this order: writer.py (from prompt to growing text), page.py and tabs/ (controls and events),
launch.py (serving).
"""

from ptbr_slm.app.launch import Page, launch_options, open_page, serve

__all__ = ["Page", "launch_options", "open_page", "serve"]
