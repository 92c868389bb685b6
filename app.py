"""The page for Hugging Face Spaces and Kaggle (`%run app.py`); PTBR_SLM_MODEL names the model's folder."""

import os
import sys

from ptbr_slm.app import open_page, serve
from ptbr_slm.errors import SlmError

try:
    page = open_page(os.environ.get("PTBR_SLM_MODEL", "machado"))
    demo = page.demo
    if __name__ == "__main__":
        serve(page)
except SlmError as error:
    sys.exit(str(error))
