"""`python -m streamlit_extension` is `streamlit-extension`."""

from streamlit_extension.cli import main

if __name__ == "__main__":
    main()
